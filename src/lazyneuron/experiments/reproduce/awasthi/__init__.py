"""Tables and figures of Awasthi et al.: learning and certifying sparsely activated networks.

For `lazyneuron reproduce awasthi-...`; setting.py holds what they share, the bounds themselves are in `learn`.
"""
