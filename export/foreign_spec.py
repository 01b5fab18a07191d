"""spec.toml of a foreign model: the model spec, and under [import] how the ONNX file is laid out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from edge_latup.errors import SpecError
from edge_latup.records import Record, summary_of
from edge_latup.spec import ModelSpec, RegionHead

Layout = Literal["NCDHW", "NDHWC", "NCHW", "NHWC"]
LAYOUTS: Final[tuple[Layout, ...]] = ("NCDHW", "NDHWC", "NCHW", "NHWC")
Activation = Literal["softmax", "sigmoid", "none"]
HOUSE: Final = "NCxyz"
"""Axes of every artifact: batch, channels, and the case's three axes in the spec's orientation (with LPS: left, back, up)."""
TABLE: Final = "import"


class ImportSpec(Record):
    """The [import] table: what only the import needs to know of one ONNX file."""

    layout: Layout
    """Order of the input's axes: batch N, channels C, and D, H, W (H, W in 2-D)."""
    axes: str = ""
    """What D, H and W (H and W) run along, in the spec's orientation. Default "xyz" ("xy"); arrays of SimpleITK are "zyx" ("yx").
    The slices of a 2-D network are stacked along the axis that is left."""
    output: str | None = None
    """Which output is used, where there are several; the others are dropped from the graph."""
    output_layout: Layout | None = None
    """Where the output's axes come in another order than the input's."""
    activation: Activation
    """What is applied to the output to make it probabilities; "none" where the network does so itself."""
    foreground: int | None = Field(None, ge=0)
    """Channel that is the region's probability, where a softmax tells it from the background (1 of [background, foreground])."""

    @model_validator(mode="after")
    def _consistent(self) -> ImportSpec:
        spatial = len(self.layout) - 2
        if self.axes and (len(self.axes) != spatial or len(set(self.axes)) != spatial or not set(self.axes) <= set("xyz")):
            raise ValueError(f"axes {self.axes!r} must name {spatial} different ones of x, y, z for layout {self.layout}")
        if self.output_layout is not None and len(self.output_layout) != len(self.layout):
            raise ValueError(f"output_layout {self.output_layout} has another number of axes than layout {self.layout}")
        return self

    @property
    def flat(self) -> bool:
        """Whether the network is 2-D."""
        return len(self.layout) == 4

    @property
    def input_letters(self) -> str:
        """The input's axes by the letters of `HOUSE`, such as "NzyxC"; a 2-D network's batch is the axis its slices lie along."""
        return letters(self.layout, self.axes)

    @property
    def output_letters(self) -> str:
        """The same of the output."""
        return letters(self.output_layout or self.layout, self.axes)


def letters(layout: Layout, axes: str = "") -> str:
    """A layout's axes by the letters of `HOUSE`."""
    named = axes or ("xyz" if len(layout) == 5 else "xy")
    names = dict(zip([letter for letter in layout if letter in "DHW"], named, strict=True))
    if len(layout) == 4:
        names["N"] = (set("xyz") - set(named)).pop()
    return "".join(names.get(letter, letter) for letter in layout)


@dataclass(frozen=True, kw_only=True)
class ForeignSpec:
    """spec.toml, read and checked; `imports` has one entry for each ONNX file."""

    path: Path
    text: str
    model: ModelSpec
    imports: tuple[ImportSpec, ...]

    def change(self, key: str, value: str, nth: int = 0) -> str:
        """The line to change, in words: where it is, what it says and what it should say; `nth` counts [[import]] tables."""
        lines = [(number, line.partition("#")[0].strip()) for number, line in enumerate(self.text.splitlines(), 1)]
        found = [(number, line) for number, line in lines if re.search(rf"\b{key}\s*=", line)]
        if nth < len(found):
            number, line = found[nth]
            return f"in {self.path}, line {number}, write {key} = {value} instead of {line}"
        table = TABLE if key in ImportSpec.model_fields else "regions" if key in RegionHead.model_fields else ""
        return f"in {self.path}, add {key} = {value} {f'under [{table}]' if table else 'at the top'}"


def read_foreign_spec(path: Path) -> ForeignSpec:
    """Read spec.toml.

    Raises:
        SpecError: it is missing, no TOML, or not a spec; the message names the key and the nearest known one.
    """
    return parse_foreign_spec(path, *read_toml(path))


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """A TOML file's text and what it says.

    Raises:
        SpecError: it is missing, or no TOML.
    """
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        hint = f"start from a skeleton: edge-latup import MODEL --describe > {path}"
        raise SpecError(f"{path} does not exist", hint) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not TOML: {error}", "correct the file") from error


def parse_foreign_spec(path: Path, text: str, data: dict[str, Any]) -> ForeignSpec:
    """The spec that `data` says; `text` and `path` are for messages.

    Raises:
        SpecError: it is not a spec; the message names the key and the nearest known one.
    """
    try:
        return _checked(path, text, data)
    except ValidationError as error:
        raise SpecError(f"{path} is not a valid {error.title}: {summary_of(error)}", "correct the file") from error


def _checked(path: Path, text: str, data: dict[str, Any]) -> ForeignSpec:
    tables = data.pop(TABLE, None)
    if not tables:
        raise SpecError(f"{path} has no [{TABLE}] table", f'add one with layout and activation, such as [{TABLE}], layout = "NCDHW"')
    if "network" in data:
        raise SpecError(f"{path} has a network, which belongs to checkpoints of this package", "leave it out")
    model = ModelSpec.model_validate(data)
    imports = tuple(ImportSpec.model_validate(table) for table in (tables if isinstance(tables, list) else [tables]))
    spec = ForeignSpec(path=path, text=text, model=model, imports=imports)
    _refuse_contradictions(spec)
    return spec


def _refuse_contradictions(spec: ForeignSpec) -> None:
    regions = spec.model.regions
    for nth, how in enumerate(spec.imports):
        if how.foreground is not None and (regions is None or len(regions.order) != len(spec.imports)):
            raise SpecError(
                f"{spec.path}: foreground picks the one channel of a region, the spec has {spec.model.channels} {spec.model.channel_kind}",
                spec.change("order", '["WT"]') if regions is None else "leave out foreground, or give one [[import]] for each region",
            )
        if regions is not None and how.activation == "softmax" and how.foreground is None:
            raise SpecError(
                f"{spec.path}: a softmax makes channels exclude each other, regions overlap",
                spec.change("activation", '"sigmoid"', nth) + ", or, for [background, foreground], add foreground = 1",
            )
    if len(spec.imports) > 1 and spec.model.channels != len(spec.imports):
        raise SpecError(
            f"{spec.path} has {len(spec.imports)} [[{TABLE}]] tables for {spec.model.channels} {spec.model.channel_kind}",
            "a chain has one [[import]] for each region, in the order of [regions] order",
        )
