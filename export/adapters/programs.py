"""PyTorch programs, `.pt2` and TorchScript: looked through before anything is loaded, because loading either can run more than a network.

PyTorch's own `torch.export.load` unpickles what an archive asks it to (weights, constants and sample inputs), parses shape expressions
as Python, writes the names of tensors and arguments into a function that it compiles, and looks operators up by any name below `torch`; its
module then runs the guards that the archive states, which are Python too. A TorchScript file holds code, which may write files.
"""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import Artifact, sha256_of
from edge_latup.errors import ArtifactError, SpecError
from edge_latup.export.adapters.outputs import Chosen
from edge_latup.export.adapters.spec_text import choose
from edge_latup.export.adapters.traced import Array, import_module, write_by_export
from edge_latup.export.adapters.weights import load_weights
from edge_latup.export.foreign_spec import ForeignSpec
from edge_latup.versions import versions_of

OPERATORS: Final = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?|_operator\.(getitem|add|sub|mul|floordiv|eq|ge|le|gt|lt)"
)
EXPRESSION: Final = re.compile(r"[A-Za-z0-9_ +*/-]*")
"""Sums and products of names and numbers: nothing that can call or index."""
TEXT: Final = re.compile(r"[\w.:+,>* /-]*")
"""Names, devices, modes, einsum equations. Names become parts of a generated function, where none of this can call, assign or quote."""
GUARD: Final = re.compile(r"(?:[\w\[\]'. <>=!*+%-]|\.size\(\))*")
"""What is asked of an input's sizes. Guards are not run; one that could do something else is a sign of what the archive is for."""
UNUSED: Final = ("metadata",)
"""Where the network came from, such as lines of its source: kept as text by PyTorch."""
TREES: Final = ("in_spec", "out_spec", "context")
"""JSON inside of a text."""
CONTAINERS: Final = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
"""What arguments and outputs may be packed in; for others PyTorch imports the module that the archive names."""
MEMBERS: Final = re.compile(
    r"models/\w+\.json|data/(weights|constants)/(\w+_config\.json|\w+)|data/sample_inputs/\w+\.pt|extra/.*"
    r"|archive_format|archive_version|version|byteorder|\.data/(version|serialization_id)"
)
"""What PyTorch writes, in small letters. What lies below `models/` is read as a model whatever its ending."""
FILES: Final = ("from_file", "save", "getattr", "setattr", "__setstate__", "__getstate__", "import_ir_module")
"""What TorchScript code must not name: operators that touch files, and code that runs while loading."""
PLAIN: Final = ("__torch__", "torch._utils", "torch.jit._pickle", "torch", "collections")
"""Modules of the types that TorchScript's own files refer to."""
TRUST: Final = "where you trust its source, export the network to ONNX in its own environment, and import that"


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names in small letters, without the archive's own folder, and contents.

    PyTorch's reader finds members by name in either case, so that of two alike it might load the one that was not looked at.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if (
                file.read(4) != b"PK\x03\x04"
                or len({name.lower() for name in names}) < len(names)
                or not all("/" in name for name in names)
            ):
                raise _refuse(path, "its archive holds more than PyTorch writes, or a name twice")
            for name in names:
                yield name.partition("/")[2].lower(), archive.read(name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise ArtifactError(f"{path} is a damaged archive: {error}", "copy it again") from error


def _refuse(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path} is refused: {what}", TRUST)


def load_program(path: Path) -> Any:
    """The module of a `.pt2` program, after everything in it that could run has been ruled out.

    Raises:
        ArtifactError: it holds pickled objects, compiled code, or operators other than PyTorch's own; or it cannot be loaded.
    """
    import torch

    if path.suffix != ".pt2":
        raise ArtifactError(f"{path} is a program of torch.export under another name", f"rename it to {path.stem}.pt2")
    for name, content in _members(path):
        _check_member(path, name, content)
    try:
        return torch.export.load(path).module(check_guards=False)
    except Exception as error:  # whatever the deserialiser raises
        raise ArtifactError(f"{path} cannot be loaded: {_first(error)}", "save it again with this release of PyTorch") from error


def _check_member(path: Path, name: str, content: bytes) -> None:
    if name.startswith("data/sample_inputs/"):
        _check_samples(path, content)
    elif name.endswith((".pt", ".pkl", ".so", ".o", ".cubin")) or "aotinductor" in name or "custom_obj" in name or "opaque" in name:
        raise _refuse(path, f"{name} holds pickled objects or compiled code")
    elif not MEMBERS.fullmatch(name):
        raise _refuse(path, f"it has a member {name}, which PyTorch does not write")
    elif name.endswith(".json"):
        try:
            _check_json(path, name, json.loads(content))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{path}: {name} is damaged: {error}", "copy it again") from error


def _check_samples(path: Path, content: bytes) -> None:
    """Read first by PyTorch's restricted reader: where that fails, `torch.export.load` would fall back to the unrestricted one."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        file.write(content)
        file.flush()
        try:
            load_weights(Path(file.name), "checkpoint")
        except ArtifactError as error:
            raise _refuse(path, "its sample inputs hold pickled objects") from error


def _check_json(path: Path, name: str, value: Any) -> None:
    if isinstance(value, str) and not TEXT.fullmatch(value):
        raise _refuse(path, f"{name} holds {value[:60]!r}, where a name belongs")
    if isinstance(value, list):
        for inner in value:
            _check_json(path, name, inner)
    if not isinstance(value, Mapping):
        return
    for key, inner in value.items():
        _check_json(path, name, key)
        if key == "use_pickle" and inner:
            raise _refuse(path, f"{name} asks for pickled tensors")
        if not _checked(path, key, inner, value):
            _check_json(path, name, json.loads(inner) if key in TREES and isinstance(inner, str) else inner)


def _checked(path: Path, key: str, inner: Any, around: Mapping[str, Any]) -> bool:
    """Whether a value has a rule of its own, which it then keeps."""
    if key == "target" and isinstance(inner, str) and "inputs" in around and not OPERATORS.fullmatch(inner):
        raise _refuse(path, f"it calls {inner}, which is no operator of PyTorch's own")
    if key == "type" and isinstance(inner, str) and "children_spec" in around and inner not in CONTAINERS:
        raise _refuse(path, f"its arguments or outputs are packed in {inner}")
    if key == "expr_str" and isinstance(inner, str) and not EXPRESSION.fullmatch(inner):
        raise _refuse(path, f"a size is {inner!r}, which would be run")
    if key == "guards_code":
        for guard in inner if isinstance(inner, list) else [inner]:
            if not isinstance(guard, str) or not GUARD.fullmatch(guard) or "__" in guard:
                raise _refuse(path, f"a guard is {guard!r}, which is more than a condition on sizes")
        return True
    return key in UNUSED


def load_script(path: Path) -> Any:
    """A TorchScript module, whose code is not run while it is loaded.

    Raises:
        ArtifactError: its code names operators that touch files or run at loading; or it cannot be loaded.
    """
    import torch

    for name, content in _members(path):
        if name.startswith("code/") and name.endswith(".py"):
            _check_code(path, name, content)
        elif name.endswith(".pkl"):
            _check_pickle(path, name, content)
    try:
        return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever the compiler raises
        raise ArtifactError(f"{path} cannot be loaded: {_first(error)}", "save it again with this release of PyTorch") from error


def _check_code(path: Path, name: str, content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    if found := re.search(rf"\b({'|'.join(FILES)})\b", text):
        raise _refuse(path, f"{name} names {found[0]}, which may touch files or run while it is loaded")
    if found := re.search(r"\bops\.(?!aten\.|prim\.)\w+\.\w+", text):
        raise _refuse(path, f"{name} calls {found[0]}, which is no operator of PyTorch's own")


def _check_pickle(path: Path, name: str, content: bytes) -> None:
    """TorchScript's reader builds no Python objects; a file that asks for some was not made by it."""
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "STACK_GLOBAL" or operation.name == "INST":
                raise _refuse(path, f"{name} is not what TorchScript writes")
            if operation.name == "GLOBAL":
                module = str(argument).partition(" ")[0]
                if module not in PLAIN and not module.startswith("__torch__."):
                    raise _refuse(path, f"{name} asks for {argument}")
    except ValueError as error:
        raise ArtifactError(f"{path}: {name} is damaged: {error}", "copy it again") from error


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def write_by_trace(network: Any, example: Array, path: Path) -> None:
    """By tracing, which is what takes TorchScript; sizes are the example's."""
    import warnings

    import torch

    given = torch.from_numpy(example)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, given, check_trace=False)  # type: ignore[no-untyped-call]
        torch.onnx.export(
            traced, (given,), str(path), dynamo=False, opset_version=17, input_names=["image"], output_names=[network.name],
        )  # fmt: skip


def import_program(path: Path, out: Path, *, script: bool, spec: Path | None, overwrite: bool = False) -> Artifact:
    """Import a `.pt2` program or a TorchScript file; of several outputs the one that the spec names.

    Raises:
        ArtifactError, SpecError: it is not safe to load, cannot be traced, or is not what the spec says. Nothing is left behind.
    """
    told = choose(spec, lambda: _no_spec(path))
    network = Chosen.of(load_script(path) if script else load_program(path), told)
    origin = {
        "source": "torchscript" if script else "exported-program", "file": path.name, "sha256": sha256_of(path),
        "dropped_outputs": network.others, "made_with": versions_of("torch"),
    }  # fmt: skip
    return import_module(network, told, out, origin, overwrite=overwrite, write=write_by_trace if script else write_by_export)


def _no_spec(path: Path) -> ForeignSpec:
    raise SpecError(f"{path} does not tell how it is fed", f"start with a spec: edge-latup import {path} --describe > spec.toml")
