"""What is installed here and what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_latup.runtimes.base import installed
from edge_latup.targets.host import Host, describe_host
from edge_latup.versions import version_of

CORE: Final = "pip install 'edge-latup[core]'"
ENGINEER: Final = "pip install 'edge-latup[engineer]'"
PACKAGES: Final = (
    ("numpy", "numpy", "everything", "pip install edge-latup"),
    ("nibabel", "nibabel", "reading and writing cases", "pip install edge-latup"),
    ("openvino", "openvino", "running artifacts (x86 default)", CORE),
    ("onnxruntime", "onnxruntime", "running artifacts (fallback), proving parity", "pip install 'edge-latup[onnxruntime]'"),
    ("torch", "torch", "training and export", ENGINEER),
    ("safetensors", "safetensors", "checkpoints", ENGINEER),
    ("onnx", "onnx", "export and compression", ENGINEER),
    ("onnxscript", "onnxscript", "export", ENGINEER),
    ("nncf", "nncf", "static INT8 for OpenVINO", ENGINEER),
    ("scipy", "scipy", "HD95, grafted lesions", ENGINEER),
    ("jinja2", "jinja2", "the report", ENGINEER),
    ("plotly", "plotly", "the report", ENGINEER),
    ("PIL", "pillow", "the report", ENGINEER),
)
"""Import name, distribution, purpose, remedy."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One package: `works` is whether it can be imported."""

    name: str
    version: str
    works: bool
    purpose: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole diagnosis."""

    host: Host
    items: tuple[Item, ...]
    openvino_precisions: tuple[str, ...]


def diagnose() -> Report:
    """Look at every package this toolkit may use, and at what OpenVINO computes in on this CPU."""
    items = tuple(
        Item(name=name, version=version_of(name), works=installed(module), purpose=purpose, remedy=remedy) for module, name, purpose, remedy in PACKAGES
    )
    return Report(host=describe_host(), items=items, openvino_precisions=_openvino_precisions())


def _openvino_precisions() -> tuple[str, ...]:
    """The CPU plugin's optimised precisions; empty without OpenVINO."""
    if not installed("openvino"):
        return ()
    import openvino as ov

    return tuple(str(name) for name in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
