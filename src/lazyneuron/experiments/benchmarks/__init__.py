"""Benchmarks of lazyneuron; each module runs with ``python -m``."""
