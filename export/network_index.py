"""The networks this package builds, from networks.toml: reference, cost, published figures and what contradicts them. Needs no PyTorch."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import resources
from typing import Annotated, Final

from pydantic import Field, model_validator

from edge_latup.errors import InputError
from edge_latup.records import Record
from edge_latup.spec import LABELS, AnyNetwork, ModelSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

INDEX_NAME: Final = "networks.toml"


class PublishedFigure(Record):
    """A figure of the literature, and what contradicts or limits it; an empty remark is none."""

    figure: str
    value: str
    remark: str


class KnownNetwork(Record):
    """One network. `macs` are those of its convolutions for one input of `cost_input`."""

    name: str
    title: str
    reference: str
    address: str
    licence: str
    reading: str
    """What is built where the publication is silent or contradicts itself."""
    parameters: int = Field(ge=1)
    running_statistics: int = Field(0, ge=0)
    """Values of batch norms that are stored but not trained."""
    cost_input: Annotated[tuple[int, ...], Field(min_length=4, max_length=5)]
    macs: int = Field(ge=1)
    published: tuple[PublishedFigure, ...] = ()
    learns_histogram: bool = False
    """Whether training makes the histogram reference of the spec from its cases: none is published."""
    spec: ModelSpec

    @model_validator(mode="after")
    def _consistent(self) -> KnownNetwork:
        if self.spec.network is None or self.spec.name != self.name:
            raise ValueError(f"network {self.name} needs a spec of its name that declares the network")
        return self

    @property
    def network(self) -> AnyNetwork:
        """The network its spec declares."""
        if self.spec.network is None:
            raise TypeError(f"{self.name} declares no network")
        return self.spec.network

    @property
    def trained_spec(self) -> ModelSpec:
        """The spec with a background among its classes: a softmax over tumour classes alone cannot learn where there is none."""
        if self.spec.regions is not None or 0 in self.spec.labels:
            return self.spec
        network = self.network.model_copy(update={"out_channels": len(LABELS)})
        post_process = self.spec.post_process.model_copy(update={"threshold": None})
        return self.spec.model_copy(update={"network": network, "labels": LABELS, "post_process": post_process})

    @property
    def outputs(self) -> str:
        """What the output channels stand for."""
        spec = self.spec
        return "regions " + ", ".join(spec.regions.order) if spec.regions else "labels " + ", ".join(map(str, spec.labels))

    def remarks(self) -> list[str]:
        """The published figures, each with what must be said beside it."""
        return [f"published: {one.figure} {one.value}" + (f": {one.remark}" if one.remark else "") for one in self.published]


class _Index(Record):
    network: tuple[KnownNetwork, ...]


@lru_cache(maxsize=1)
def known_networks() -> tuple[KnownNetwork, ...]:
    """Every network of the index, in its order."""
    text = resources.files("edge_latup.export").joinpath(INDEX_NAME).read_text(encoding="utf-8")
    return _Index.model_validate(tomllib.loads(text)).network


def known_network(name: str) -> KnownNetwork:
    """The network of a name.

    Raises:
        InputError: there is none.
    """
    found = next((network for network in known_networks() if network.name == name), None)
    if found is None:
        names = ", ".join(network.name for network in known_networks())
        raise InputError(f"network {name!r} is not known", f"choose one of: {names}")
    return found
