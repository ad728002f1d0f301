"""Models whose weights have 8 or 4 bits: the modules that hold them, the exchange of a model's linear layers for them.

For `accelerate_` and for loading; the bytes and their kernels are in `ops/quantised`. Nothing here keeps the weights
that were quantised.
"""
