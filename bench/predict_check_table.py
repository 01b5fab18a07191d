"""The prediction check as Markdown, and the block of a document that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edge_latup.bench.document_block import table_lines
from edge_latup.bench.predict_check_records import CheckRecord, CheckRow
from edge_latup.bench.published_cases import PublishedCheck
from edge_latup.targets.isa import title

BLOCK: Final = "predict-check"
"""Of docs/prediction.md."""
COLUMNS: Final = (
    "input", "precision", "kernels", "bound, predicted ms", "likely, predicted ms", "measured ms", "likely / measured", "within 35 %",
    "bound holds", "peak memory, predicted / measured",
)  # fmt: skip
PUBLISHED: Final = (
    "published case",
    "bound, predicted ms",
    "likely, predicted ms (range)",
    "published ms",
    "likely / published",
    "within 35 %",
)


def markdown(record: CheckRecord) -> str:
    """Both tables with the conditions they hold under."""
    worst = record.worst
    total = len(record.rows)
    lines = [
        f"{record.host.summary}; {record.threads} threads; OpenVINO {record.versions.get('openvino', 'unknown')}; {record.started}.",
        f"Load average while timing: up to {max(row.load_average for row in record.rows):.1f}.",
        "",
        *table_lines(COLUMNS, [_cells(row) for row in record.rows]),
        "",
        f"Within 35 %: {record.within} of {total} configurations (at least 80 % are asked for). Mean error {record.mean_error:.0%}; "
        f"the worst is {_named(worst)} with a ratio of {worst.ratio:.2f}. The bound is "
        + ("never above a measurement." if record.bounds_hold else f"above the measurement in {_broken(record)}: it does NOT hold."),
        *(["", "Not measured:", "", *(f"- {reason}" for reason in record.missing)] if record.missing else []),
        "",
        *published_lines(record.published),
    ]
    return "\n".join(lines) + "\n"


def published_lines(checks: Sequence[PublishedCheck]) -> list[str]:
    """Published figures beside what is predicted from the others; nothing was executed here."""
    cells = [published_cells(check) for check in checks]
    return [*table_lines(PUBLISHED, cells), "", *(f"- {check.name}: {check.source}; {check.caution}." for check in checks)]


def published_cells(check: PublishedCheck) -> list[str]:
    """One row of that table."""
    low, high = check.likely_range_ms
    return [
        check.name, f"{check.bound_ms:.0f}", f"{check.likely_ms:.0f} ({low:.0f} to {high:.0f})", f"{check.published_ms:.0f}",
        f"{check.ratio:.2f}", "yes" if check.within else "no",
    ]  # fmt: skip


def _cells(row: CheckRow) -> list[str]:
    return [
        f"{row.side}^3", row.precision, title(row.isa), f"{row.predicted_bound_ms:,.0f}", f"{row.predicted_likely_ms:,.0f}",
        f"{row.measured_ms:,.0f}", f"{row.ratio:.2f}", "yes" if row.within else "no", "yes" if row.bound_holds else "no",
        f"{row.memory_ratio:.2f}",
    ]  # fmt: skip


def _named(row: CheckRow) -> str:
    return f"{row.side}^3 {row.precision}, {title(row.isa)},"


def _broken(record: CheckRecord) -> str:
    return " and ".join(_named(row).rstrip(",") for row in record.rows if not row.bound_holds)
