"""Which rows of a matrix may give a token its k largest products: the definition and the native kernel.

For `accelerate.head`. The kernel reads an int8 sketch; its layout is that of `ops/sparse_mlp/sketch.py`.
"""
