"""A spec that an adapter worked out, as the spec.toml a person could have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_latup.errors import SpecError
from edge_latup.export.foreign_spec import TABLE, ForeignSpec, parse_foreign_spec, read_foreign_spec


def made_spec(source: Path, model: dict[str, Any], how: dict[str, Any]) -> ForeignSpec:
    """The spec of these values; its text is what --describe prints.

    Raises:
        SpecError: the model says something that no spec can.
    """
    import tomli_w

    text = tomli_w.dumps({**model, TABLE: how})
    return parse_foreign_spec(source, text, {**model, TABLE: how})


def choose(spec: Path | None, make: Callable[[], ForeignSpec]) -> ForeignSpec:
    """The spec of a file where there is one, else what `make` works out.

    Raises:
        SpecError: the file cannot be read, or describes several networks; or whatever `make` raises.
    """
    if spec is None:
        return make()
    given = read_foreign_spec(spec)
    if len(given.imports) != 1:
        raise SpecError(f"{spec} has {len(given.imports)} [import] tables for one network", "leave one")
    return given


def as_comments(facts: Mapping[str, Any]) -> str:
    """Facts as TOML comments."""
    return "".join(f"# {key}: {value}\n" for key, value in facts.items())
