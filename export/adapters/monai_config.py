"""A MONAI bundle's configuration read as data: references are followed, expressions and unknown classes refused, nothing is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_latup.errors import ArtifactError

NAMES: Final = ("inference", "evaluate", "train")
DEEPEST: Final = 50
"""A reference that leads further refers to itself."""
NOTES: Final = ("_desc_", "_disabled_")
Found = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Its folder, metadata.json, and the configuration that says how it infers, with that file's name."""

    folder: Path
    metadata: Found
    config: Found
    config_path: Path

    def refuse(self, what: str, hint: str) -> ArtifactError:
        """The refusal of something in the configuration."""
        return ArtifactError(f"{self.config_path}: {what}", hint)


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's two files.

    Raises:
        ArtifactError: one is missing or no JSON or YAML.
    """
    configs = folder / "configs"
    found = [configs / f"{name}{ending}" for name in NAMES for ending in (".json", ".yaml", ".yml")]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise ArtifactError(f"{folder} has no configs/inference.json or .yaml", "copy the whole bundle")
    return Bundle(folder=folder, metadata=_read(configs / "metadata.json"), config=_read(path), config_path=path)


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", "copy the whole bundle") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} holds no mapping", "copy the whole bundle")
    return found


def plain(bundle: Bundle, value: Any, where: str, depth: int = 0) -> Any:
    """The value with its references replaced by what they name; classes inside stay what they are, a mapping with `_target_`.

    Raises:
        ArtifactError: a `$` expression, an included file, or a reference to nothing or to itself.
    """
    if depth > DEEPEST:
        raise bundle.refuse(f"{where} refers to itself", "correct the bundle")
    if isinstance(value, Mapping):
        return {key: plain(bundle, inner, f"{where}::{key}", depth + 1) for key, inner in value.items() if key not in NOTES}
    if isinstance(value, list):
        return [plain(bundle, inner, f"{where}::{index}", depth + 1) for index, inner in enumerate(value)]
    if isinstance(value, str) and value[:1] in ("$", "%"):
        what = "an expression, which would be run" if value[0] == "$" else "another file"
        raise bundle.refuse(
            f"{where} is {what}: {value}", "write its value there, or export the network to ONNX where you trust the bundle"
        )
    if isinstance(value, str) and value.startswith("@"):
        return plain(bundle, _named(bundle, value[1:], where), value[1:], depth + 1)
    return value


def _named(bundle: Bundle, reference: str, where: str) -> Any:
    found: Any = bundle.config
    for part in reference.replace("#", "::").split("::"):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise bundle.refuse(f"{where} refers to @{reference}, which is not there", "correct the bundle")
    return found


def target_of(value: Any) -> str:
    """The class a component names, without its module; "" of what is no component."""
    return str(value.get("_target_", "")).rpartition(".")[2] if isinstance(value, Mapping) else ""
