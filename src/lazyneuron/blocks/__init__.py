"""MLP blocks: what they are, how they are found in any model, and how their execution is replaced."""
