"""Training that keeps only what fires: what a block's backward needs, as bits and values.

`functions.py` has the gradients, `overrides.py` what stands for activations, dropouts and `down` meanwhile; a tensor
carries its packed form from one to the next, so that whatever the model does in between stays right.
"""
