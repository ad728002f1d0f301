"""The laboratory: the demo, benchmarks, sweeps and reproduced experiments, for the command line and the documentation.

All are an `Experiment` (experiment.py) in one catalogue (catalogue.py): a new one is a file and a name there. They use
every room but the command line, and no room uses them. jobs.py and training/ make results; render.py fills the pages.
"""
