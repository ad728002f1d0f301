"""What stands around the layers of a language model while it decodes: RMS norms, and attention of single queries.

Nothing here is sparse. Run from Python, these cost more calls than a quantised layer costs time.
"""
