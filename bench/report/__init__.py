"""One self-contained HTML file from the records of a run."""

from edge_latup.bench.report.render import render_report

__all__ = ["render_report"]
