"""Weights of a Keras file, read through h5py: the arrays only, never a layer's configuration or code."""

from __future__ import annotations

import io
import itertools
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import ArtifactError, MissingDependencyError, install_hint

Kind = Literal["convolution", "dense", "norm"]
Group = tuple[str, list[tuple[str, Any]]]
INNER: Final = "model.weights.h5"
"""The weights in a .keras archive."""
MOST_BYTES: Final = 2**31
"""Largest total size of the arrays: a compressed data set may promise far more than its file is long."""
SKIPPED: Final = ("optimizer", "optimizer_weights", "top_level_model_weights", "seed_generator", "metrics")
HINT: Final = "save it again in Keras: model.save_weights('model.weights.h5')"


@dataclass(frozen=True, kw_only=True)
class KerasLayer:
    """One layer with weights. tensors: as Keras stores them, float32: (kernel, bias), (kernel,) or (gamma, beta)."""

    name: str
    kind: Kind
    tensors: tuple[NDArray[np.float32], ...]

    def __str__(self) -> str:
        return f"{self.name} {' '.join(str(tensor.shape) for tensor in self.tensors)}"


@dataclass(frozen=True, kw_only=True)
class KerasWeights:
    """All layers of a file. listed: whether the file lists them in order; otherwise they come by name, counters as numbers."""

    path: Path
    layers: tuple[KerasLayer, ...]
    listed: bool


def read_keras(path: Path) -> KerasWeights:
    """Read a legacy `.h5`, a `.weights.h5` or a `.keras` archive.

    Raises:
        ArtifactError: it is none of them, is damaged, or refers to other files.
        MissingDependencyError: h5py is not installed.
    """
    with _opened(path) as file:
        try:
            root = _at(path, file, "model_weights") if "model_weights" in file else file
            listed = "layer_names" in root.attrs
            groups = list(_listed(path, root) if listed else _found(path, root))
            layers = tuple(_layer(path, name, tensors) for name, tensors in groups)
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is not a whole Keras weights file: {error}", HINT) from error
    if not layers:
        raise ArtifactError(f"{path} holds no layer with weights", HINT)
    return KerasWeights(path=path, layers=layers, listed=listed)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError("reading Keras weights needs h5py", install_hint("keras")) from None
    try:
        with h5py.File(_inner(path) if zipfile.is_zipfile(path) else path, "r") as file:
            yield file
    except OSError as error:
        raise ArtifactError(f"{path} is not HDF5, or is cut: {error}", HINT) from error


def _inner(path: Path) -> io.BytesIO:
    """The weights inside a .keras archive; its configuration, which may hold code, is not opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            if INNER not in archive.namelist():
                raise ArtifactError(f"{path} is a zip archive without {INNER}, not a .keras file", HINT)
            if archive.getinfo(INNER).file_size > MOST_BYTES:
                raise ArtifactError(f"{path}: {INNER} is larger than {MOST_BYTES} bytes", HINT)
            return io.BytesIO(archive.read(INNER))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ArtifactError(f"{path} is a damaged archive: {error}", HINT) from error


def _listed(path: Path, root: Any) -> Iterator[Group]:
    """Layers of the legacy layout: attributes name the layers, and each layer's weights, in order."""
    for name in _texts(root.attrs["layer_names"]):
        if name in SKIPPED:
            continue
        group = _at(path, root, name)
        names = _texts(group.attrs["weight_names"])
        # A layer that holds layers lists the weights of all of them: each one's lie side by side.
        for inner, weights in itertools.groupby(names, lambda weight: weight.rpartition("/")[0]):
            yield inner or name, [(weight.rpartition("/")[2], _dataset(path, group, weight)) for weight in weights]


def _found(path: Path, root: Any) -> Iterator[Group]:
    """Layers of the layout since Keras 2.13: a group `vars` in each layer's group, with numbered arrays."""
    for name in sorted(root, key=_natural):
        if name in SKIPPED:
            continue
        group = _at(path, root, name)
        if not hasattr(group, "keys"):
            continue
        if name == "vars":
            if len(group):
                yield group.parent.name.strip("/"), [(key, _dataset(path, group, key)) for key in sorted(group, key=_natural)]
        else:
            yield from _found(path, group)


def _at(path: Path, group: Any, name: str) -> Any:
    """What lies at `name` below `group`; links to other places or files are not followed."""
    import h5py

    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ArtifactError(f"{path}: {group.name}/{part} refers to another place or file, or is missing", HINT)
        group = group[part]
    return group


def _dataset(path: Path, group: Any, name: str) -> Any:
    """A data set that is stored in this file, in floats, of a bounded size."""
    found = _at(path, group, name)
    if not hasattr(found, "dtype") or found.dtype.kind != "f":
        raise ArtifactError(f"{path}: {found.name} holds no floating-point array", HINT)
    if found.external or found.is_virtual:
        raise ArtifactError(f"{path}: {found.name} keeps its values in another file", HINT)
    if found.nbytes > MOST_BYTES:
        raise ArtifactError(f"{path}: {found.name} {found.shape} is larger than {MOST_BYTES} bytes", HINT)
    return found


def _layer(path: Path, name: str, tensors: list[tuple[str, Any]]) -> KerasLayer:
    shapes = [found.shape for _, found in tensors]
    kind = {(5, 1): "convolution", (2,): "dense", (1, 1): "norm"}.get(tuple(len(shape) for shape in shapes))
    if kind is None:
        remedy = "LATUP-Net has convolutions with a bias, dense layers without, and norms with gamma and beta"
        raise ArtifactError(f"{path}: layer {name} has weights {shapes}, as no layer of LATUP-Net has", remedy)
    if kind == "norm":
        # The numbered layout keeps gamma before beta, which is also their alphabetical reverse.
        tensors = sorted(tensors, key=lambda tensor: "beta" in tensor[0])
    arrays = tuple(np.asarray(found[()], dtype=np.float32) for _, found in tensors)
    if bad := [key for (key, _), array in zip(tensors, arrays, strict=True) if not np.isfinite(array).all()]:
        raise ArtifactError(f"{path}: layer {name} holds NaN or infinity in {bad[0]}", "give the weights of a run that did not diverge")
    return KerasLayer(name=name, kind=kind, tensors=arrays)  # type: ignore[arg-type]


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in np.atleast_1d(values)]


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts conv3d, conv3d_1, conv3d_2, conv3d_10 as Keras counts them."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"_?(\d+)", name)]
