"""PyTorch checkpoints read as data: tensors and plain values, never code."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_latup.errors import ArtifactError

if TYPE_CHECKING:
    import torch
    from torch import nn

WRAPPERS: Final = ("module.", "_orig_mod.", "network.", "model.", "net.")
"""Prefixes that parallel, compiled and training wrappers leave before every name."""


def load_weights(path: Path, keep: str) -> Any:
    """What a .pt or .pth file holds, by PyTorch's restricted reader; beside tensors, numpy's plain numbers pass.

    Args:
        path: the file.
        keep: Python expression that picks, from `checkpoint`, what a refused file should be saved with instead.

    Raises:
        ArtifactError: it is missing or damaged, or holds anything else. Nothing of it was executed.
    """
    import torch

    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", "copy the whole folder")
    try:
        with torch.serialization.safe_globals(_plain_numbers()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols, which are read or refused all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path} is refused: reading it could run code ({_reason(error)})",
            'where you trust its source, save the plain values of it in the environment that made it: python -c "import torch; '
            f"checkpoint = torch.load('{path}', weights_only=False); torch.save({keep}, '{path}')\"",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise ArtifactError(f"{path} is no PyTorch checkpoint, or is damaged: {_reason(error)}", "copy it again") from error


def _reason(error: Exception) -> str:
    """The line of a long message that names what was met."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else type(error).__name__)


def _plain_numbers() -> list[Any]:
    """Scalars of numpy and their types, under the module names of numpy 1 and 2."""
    import numpy as np
    from numpy.dtypes import BoolDType, Float32DType, Float64DType, Int32DType, Int64DType

    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    types = [BoolDType, Float32DType, Float64DType, Int32DType, Int64DType]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *types]


def tensors_of(path: Path, found: Any) -> dict[str, torch.Tensor]:
    """The state dict in what a checkpoint holds.

    Raises:
        ArtifactError: it is no mapping from names to tensors.
    """
    import torch

    if isinstance(found, Mapping):
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(found.get(key), Mapping):
                found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ArtifactError(f"{path} holds no state dict: names and their tensors", "save network.state_dict()")
    return {str(name): value for name, value in found.items()}


def fill(network: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path, hint: str) -> nn.Module:
    """The network with these tensors, float32, in eval mode.

    Raises:
        ArtifactError: names or shapes are not the network's; the message names the first.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    tensors = _unwrapped(tensors, wanted)
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if wanted != found:
        raise ArtifactError(f"{path} does not fit {type(network).__name__}: {'; '.join(_differences(wanted, found)[:4])}", hint)
    network.load_state_dict(dict(tensors))
    return network.float().eval()


def _unwrapped(tensors: Mapping[str, torch.Tensor], wanted: Container[str]) -> Mapping[str, torch.Tensor]:
    """The tensors under the network's own names, where wrappers left a prefix before all of them."""
    for prefix in WRAPPERS * 2:
        if all(name.startswith(prefix) and name not in wanted for name in tensors):
            tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
    return tensors


def _differences(wanted: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> list[str]:
    wrong = [f"{name} is {found[name]}, expected {shape}" for name, shape in wanted.items() if name in found and found[name] != shape]
    missing = [f"{name} {shape} is missing" for name, shape in wanted.items() if name not in found]
    return [*wrong, *missing, *(f"{name} {shape} is not known" for name, shape in found.items() if name not in wanted)]
