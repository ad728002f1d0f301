"""Keeping what fires of a hidden activation as bits and values: the definition and the native kernels.

For `train`, whose backward passes need no more. Numbers are moved, never rounded.
"""
