"""The certified head of a language model: entries of the vocabulary that cannot be chosen are not computed.

For `certify_head_`. The bound is that of `slack`, the search that of `ops/candidates`; docs/head.md has the
proof.
"""
