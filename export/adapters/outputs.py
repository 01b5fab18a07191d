"""One output of a PyTorch module that gives several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import Tensor, nn

from edge_latup.errors import ArtifactError
from edge_latup.export.foreign_run import to_foreign

if TYPE_CHECKING:
    from edge_latup.export.foreign_spec import ForeignSpec

ONLY: Final = "output"
"""Name of the one output of a module that gives one; of a sequence they are output_0, output_1 and so on."""


def named(outputs: Any, name: str = ONLY) -> dict[str, Tensor]:
    """Every tensor that a module gave, by name: a mapping's keys, a sequence's numbers."""
    if isinstance(outputs, Tensor):
        return {name: outputs}
    found: dict[str, Tensor] = {}
    if isinstance(outputs, Mapping):
        for key, value in outputs.items():
            found |= named(value, str(key))
    elif isinstance(outputs, list | tuple):
        for number, value in enumerate(outputs):
            found |= named(value, f"{name}_{number}" if len(outputs) > 1 else name)
    return found


class Chosen(nn.Module):
    """A module whose other outputs are not exported."""

    def __init__(self, network: Any, name: str, others: list[str]) -> None:
        super().__init__()
        self.network, self.name, self.others = network, name, others

    def forward(self, x: Tensor) -> Tensor:
        """The chosen output."""
        return named(self.network(x))[self.name]

    @classmethod
    def of(cls, network: Any, spec: ForeignSpec) -> Chosen:
        """The output that the spec names, or the only one.

        Raises:
            ArtifactError: the network does not run at the spec's size, has no such output, or several and none is named.
        """
        import torch

        shape = to_foreign(np.zeros(spec.model.input_shape, dtype=np.float32), spec.imports[0]).shape
        try:
            with torch.inference_mode():
                found = named(network(torch.zeros(shape)))
        except Exception as error:  # whatever the network's own code raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ArtifactError(f"the network does not run on {shape}: {reason}", spec.change("size", "what the network takes")) from error
        asked = spec.imports[0].output or (next(iter(found)) if len(found) == 1 else None)
        if asked not in found:
            told = "; ".join(f"{name} {tuple(value.shape)}" for name, value in found.items())
            what = f"has no output {asked!r}" if asked else f"has {len(found)} outputs"
            raise ArtifactError(f"the network {what}: {told}", spec.change("output", json.dumps(next(iter(found), ""))))
        return cls(network, asked, [name for name in found if name != asked])
