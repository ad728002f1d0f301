"""Modules of the doubly biased recipe that are no activation functions: zeroth biases, norm floors, noise per token.

For `recipes/`, and for models built with them. Wrapped parameters keep their names: `state_dict` depends on it.
"""
