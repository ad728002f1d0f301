"""Activation functions that are zero where others are not: rectifiers with jumps, shifts and thresholds, and top-k.

For recipes, and for models built with them from the start. A new one says where it is zero (`DeclaresActivation`).
"""
