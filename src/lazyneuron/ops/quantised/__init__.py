"""Linear layers and sparse MLP blocks whose weights have 8 or 4 bits: the formats, their meaning, the native kernels.

For `accelerate` and `generate`. The layout of the bytes is shared with csrc/quantised.h: change both or neither.
"""
