"""What certified execution is compared with, a file each; all are judged by ../truth.py before they are timed.

For the grid of `lazyneuron bench`. A new one is a file with a `BASELINE` and its module in registry.py.
"""
