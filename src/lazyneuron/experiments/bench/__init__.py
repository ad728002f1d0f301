"""Benchmarks: one file each, with what is measured, the record and its section of the documentation.

For `lazyneuron bench NAME`. A new one is a file with an `EXPERIMENT` and a line in `experiments/catalogue.py`; times
come from `core/timing.py`, and what is timed is compared with its definition first.
"""
