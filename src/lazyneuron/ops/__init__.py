"""Operators: their definitions, their native kernels, and the choice between the two; the ground for the other rooms.

``native`` builds and loads csrc/; each other folder is one operator. It imports core only, and whoever changes an
operator keeps its definition and its results, bit for bit, on every ISA level.
"""
