"""Peng et al. where their modules work: long trainings at a constant rate on data that does not come twice.

For `lazyneuron reproduce peng-regime-...`. A training keeps its state in a folder, goes on where it was, and can be
made longer; tables are made from what the folder holds.
"""
