"""Tables and figures of Baykal et al.: data-dependent sparse networks, LSH layers, and what their theorems promise.

For `lazyneuron reproduce baykal-...`; samples.py holds what they share, the layers themselves are in `route`.
"""
