"""A small language model of Python code: once with a ReLU gate under pressure, once with SiLU, and what it can do.

`sources` reads, `text` splits into tokens, `training` trains with checkpoints, `evaluation` measures what is saved.
"""
