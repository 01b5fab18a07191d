"""`edge-latup doctor`: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

from typing import Any

from edge_latup.cli.output import output


def doctor() -> None:
    """Say what this machine and installation can do, and how to add what is missing."""
    from edge_latup.targets.diagnosis import diagnose

    report = diagnose()
    output.line(f"machine: {report.host.summary}")
    rows = [[i.name, i.version, i.purpose, ""] if i.works else [i.name, "missing", i.purpose, i.remedy] for i in report.items]
    output.table("Installed", ["package", "version", "needed for", "mend with"], rows, left=4)
    data: dict[str, Any] = {
        "host": report.host.model_dump(mode="json"),
        "packages": {i.name: {"version": i.version, "works": i.works, "purpose": i.purpose, "remedy": i.remedy} for i in report.items},
        "openvino_precisions": list(report.openvino_precisions),
    }
    if report.openvino_precisions:
        output.line(f"OpenVINO computes here in: {', '.join(report.openvino_precisions)}")
    output.result(data)
