"""Published tables and figures, run anew at a size that fits the machine, beside what was published.

For `lazyneuron reproduce`; a folder a group of papers. A module ends in `published(...)`, and its name stands in
experiments/catalogue.py; titles, sources and differences may be reworded, names of rows are read by the pages.
"""
