"""What a PyTorch program takes and gives, found by running it once, and a spec to start from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_latup.errors import ArtifactError
from edge_latup.export.adapters.outputs import Chosen, named
from edge_latup.export.adapters.programs import load_program, load_script, write_by_trace
from edge_latup.export.adapters.spec_text import as_comments
from edge_latup.export.adapters.traced import write_by_export
from edge_latup.export.foreign_describe import skeleton
from edge_latup.export.foreign_model import read_foreign

TRIED: Final = 64
"""Side of the input that is tried where a program does not tell its own."""


def describe_program(path: Path, *, script: bool) -> tuple[dict[str, Any], str]:
    """Facts for JSON, and a text that is a spec.toml to start from.

    Raises:
        ArtifactError: it is not safe to load, or does not run on an input of the size that it tells or that is tried.
    """
    import torch

    network = load_script(path) if script else load_program(path)
    shape = _shape(network)
    try:
        with torch.inference_mode():
            outputs = named(network(torch.zeros(shape)))
    except Exception as error:  # whatever the network's own code raises
        hint = "write a spec by hand (docs/foreign-models.md) with a size that it takes"
        raise ArtifactError(f"{path} does not run on {shape}", hint) from error
    if not (images := [name for name, value in outputs.items() if value.ndim == len(shape)]):
        told = "; ".join(f"{name} {tuple(value.shape)}" for name, value in outputs.items()) or "no tensor"
        raise ArtifactError(f"{path} takes {shape} and gives {told}, which is no label map", "export the network itself, with its decoder")
    facts = {
        "source": "torchscript" if script else "exported-program",
        "file": str(path),
        "parameters": sum(value.numel() for value in network.state_dict().values()),
        "tried": list(shape),
        "outputs": {name: list(value.shape) for name, value in outputs.items()},
    }
    likeliest = max(images, key=lambda name: outputs[name][0].numel())
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / f"{path.stem}.onnx"
        chosen = Chosen(network, likeliest, [])
        try:
            (write_by_trace if script else write_by_export)(chosen, np.zeros(shape, dtype=np.float32), graph)
        except Exception as error:  # the exporters raise whatever the network's code does
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ArtifactError(f"{path} cannot be traced at {shape}: {reason}", "export it to ONNX, and describe that") from error
        text = skeleton(read_foreign(graph))
    return {**facts, "skeleton": text}, as_comments(facts) + "\n" + text


def _shape(network: Any) -> tuple[int, ...]:
    """An input's shape: what the first kernel reads, at a side that is tried; a program with a size of its own refuses others."""
    from torch.fx import GraphModule

    if isinstance(network, GraphModule):
        for node in network.graph.nodes:
            value = node.meta.get("val") if node.op == "placeholder" else None
            if value is not None:
                return tuple(side if isinstance(side, int) else TRIED for side in value.shape)
    kernel = next((value for value in network.state_dict().values() if value.ndim > 3), None)
    if kernel is None:
        raise ArtifactError("the program holds no convolution", "write a spec by hand (docs/foreign-models.md)")
    return (1, int(kernel.shape[1]), *([TRIED] * (kernel.ndim - 2)))
