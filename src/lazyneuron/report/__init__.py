"""Tables, figures and self-contained HTML pages, made from records alone."""

from lazyneuron.report.curves import curves_figure
from lazyneuron.report.figures import density_figure, latency_figure
from lazyneuron.report.frontier import frontier_figure, frontier_rows
from lazyneuron.report.page import demo_page, sparsity_page
from lazyneuron.report.tables import benchmark_markdown, markdown_table, plain_table, provenance, rich_table

__all__ = [
    "benchmark_markdown",
    "curves_figure",
    "demo_page",
    "density_figure",
    "frontier_figure",
    "frontier_rows",
    "latency_figure",
    "markdown_table",
    "plain_table",
    "provenance",
    "rich_table",
    "sparsity_page",
]
