"""Text of many kinds that a machine has anyway, split into training and held-out lines by file.

A kind is a function in ``kinds.py`` that lists its files and says how each is read; ``corpus.py`` draws from all.
"""
