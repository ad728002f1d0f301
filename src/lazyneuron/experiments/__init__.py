"""The laboratory: the demo, benchmarks, sweeps and reproduced experiments.

It uses every room but the command line, and none uses it. A new experiment is a file and a line in `catalogue.py`.
"""
