"""What is installed here and what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, get_args

from edge_latup.errors import install_hint
from edge_latup.manifest import Precision
from edge_latup.runtimes.base import installed
from edge_latup.runtimes.openvino import openvino_core
from edge_latup.targets.host import Host, describe_host
from edge_latup.versions import version_of

CORE: Final = install_hint("core")
ENGINEER: Final = install_hint("engineer")
PACKAGES: Final = (
    ("numpy", "numpy", "everything", CORE),
    ("nibabel", "nibabel", "reading and writing cases", CORE),
    ("openvino", "openvino", "running artifacts (x86 default)", CORE),
    ("onnxruntime", "onnxruntime", "running artifacts (fallback), proving parity", install_hint("onnxruntime")),
    ("torch", "torch", "training and export", ENGINEER),
    ("safetensors", "safetensors", "checkpoints", ENGINEER),
    ("onnx", "onnx", "export and compression", ENGINEER),
    ("onnxscript", "onnxscript", "export", ENGINEER),
    ("nncf", "nncf", "static INT8 for OpenVINO", ENGINEER),
    ("scipy", "scipy", "HD95, grafted lesions", ENGINEER),
    ("jinja2", "jinja2", "the report", ENGINEER),
    ("plotly", "plotly", "the report", ENGINEER),
    ("PIL", "pillow", "the report", ENGINEER),
    ("cryptography", "cryptography", "signing and verifying bundles", CORE),
    ("asyncssh", "asyncssh", "bench on other hosts", install_hint("remote")),
)
"""Import name, distribution, purpose, remedy."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One package: `works` is whether Python finds it; it is not imported, which would take seconds."""

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
        Item(name=name, version=version_of(name), works=installed(module), purpose=purpose, remedy=remedy)
        for module, name, purpose, remedy in PACKAGES
    )
    return Report(host=describe_host(), items=items, openvino_precisions=openvino_precisions())


def openvino_precisions() -> tuple[str, ...]:
    """What the CPU plugin has fast kernels for, as this toolkit names precisions; empty where OpenVINO is missing or does not start."""
    if not installed("openvino"):
        return ()
    try:
        told = {str(name).lower() for name in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
    except (ImportError, RuntimeError):
        return ()
    return tuple(precision for precision in get_args(Precision) if precision in told)
