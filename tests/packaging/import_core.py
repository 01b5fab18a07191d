"""Not a test: run by tests in an interpreter of their choice. Imports every module of the core; prints what that loaded, as JSON."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys

import edge_latup

ENGINEERS_ROOMS = ("networks", "training", "export", "quantize", "bench", "targets")
NOT_CORE = (*(f"edge_latup.{room}" for room in ENGINEERS_ROOMS), "edge_latup.__main__")
HEAVY = (
    "torch", "onnx", "onnxscript", "nncf", "openvino", "onnxruntime", "tensorrt", "monai", "pandas", "safetensors",
    "matplotlib", "plotly", "PIL", "jinja2", "SimpleITK", "distributed", "dask", "cc3d",
    # nibabel itself tries to import the bare scipy, which is light; its subpackages are not.
    "scipy.ndimage", "scipy.sparse", "scipy.spatial", "scipy.special", "scipy.stats",
)  # fmt: skip


def core_modules(package: str = "edge_latup") -> list[str]:
    """All modules of the core, found without importing those that are not of it."""
    names = [package]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if module.name in NOT_CORE:
            continue
        names += core_modules(module.name) if module.ispkg else [module.name]
    return names


if __name__ == "__main__":
    modules = core_modules()
    for module in modules:
        importlib.import_module(module)
    heavy = sorted(set(HEAVY) & set(sys.modules))
    json.dump({"file": edge_latup.__file__, "modules": modules, "heavy": heavy}, sys.stdout)
