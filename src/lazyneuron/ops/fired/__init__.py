"""Products with a hidden activation of which only what fires is there: the definition and the native kernels.

For `train`, whose backward passes touch nothing else. The bits are those of `ops/packing`.
"""
