"""Tables, figures and self-contained HTML pages, made from records alone; for the command line, the docs and users.

``style`` has the colours and draws with matplotlib, ``tables`` writes every table, ``numbers`` every number; a page is
a template filled from a ``..._view``. All of it may be restyled; a page stays one file without scripts and network.
"""

from lazyneuron.report.curves import curves_figure
from lazyneuron.report.engines import engines_figure
from lazyneuron.report.figures import density_figure, latency_figure
from lazyneuron.report.frontier import frontier_figure, frontier_rows
from lazyneuron.report.page import demo_page, sparsity_page
from lazyneuron.report.tables import csv_table, html_table, markdown_table, plain_table, provenance, rich_table

__all__ = [
    "csv_table",
    "curves_figure",
    "demo_page",
    "density_figure",
    "engines_figure",
    "frontier_figure",
    "frontier_rows",
    "html_table",
    "latency_figure",
    "markdown_table",
    "plain_table",
    "provenance",
    "rich_table",
    "sparsity_page",
]
