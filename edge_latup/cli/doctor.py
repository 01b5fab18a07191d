"""`edge-latup doctor`: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

from typing import Any

from edge_latup.cli.output import output


def doctor() -> None:
    """Say what this machine and installation can do, and how to add what is missing."""
    from edge_latup.diagnosis import diagnose

    report = diagnose()
    output.line(f"machine: {report.host.summary}")
    rows = [[item.name, item.version if item.works else "missing", item.purpose, "" if item.works else item.remedy] for item in report.items]
    output.table("Installed", ["package", "version", "needed for", "mend with"], rows, left=4)
    data: dict[str, Any] = {
        "host": report.host.model_dump(mode="json"),
        "packages": {item.name: {"version": item.version, "works": item.works, "purpose": item.purpose, "remedy": item.remedy} for item in report.items},
        "openvino_precisions": list(report.openvino_precisions),
    }
    if report.openvino_precisions:
        output.line(f"OpenVINO computes here in: {', '.join(report.openvino_precisions)}")
    output.result(data)
