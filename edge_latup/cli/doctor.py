"""`edge-latup doctor`: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_latup.cli.output import output


def doctor(
    rates: Annotated[bool, typer.Option("--rates", help="Also measure what a convolution reaches in each precision.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder that a bundle was installed into: show its version and self-test instead.")
    ] = None,
) -> None:
    """Say what this machine and installation can do, and how to add what is missing."""
    if bundle is not None:
        from edge_latup.cli.installed import show_status

        show_status(bundle)
        return
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
    if rates:
        data["rates"] = _rates(report.openvino_precisions)
    output.result(data)


def _rates(precisions: tuple[str, ...]) -> list[dict[str, Any]]:
    """Measure and show, in each precision that OpenVINO computes in here; float16 is no faster than FP32 on x86."""
    from edge_latup.targets.rates import convolution_rates

    if not precisions:
        output.warning("rates are measured with OpenVINO, which is missing")
    found = convolution_rates(tuple(name for name in precisions if name != "fp16"))
    shape = "{} to {} channels, kernel {}, side {}"
    rows = [[r.precision, r.executed, f"{r.gmacs:,.0f}", shape.format(*r.shape), str(r.runs)] for r in found]
    output.table("Convolution rates, measured", ["precision", "executed", "GMAC/s", "best shape", "n"], rows)
    return [asdict(rate) for rate in found]
