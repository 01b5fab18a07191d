"""Engines kept between runs, each under what it was built from and for, and verified before it is loaded.

A plan is tied to the GPU, the driver and the TensorRT it was built with, so these are in its key with the artifact's hash and every
option. A plan can also hold code that runs when it is loaded: so the folder must be the user's own, and the file the one that the
record beside it names by SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from edge_latup.artifact import sha256_of
from edge_latup.errors import ArtifactError, InputError
from edge_latup.records import read_record, write_record
from edge_latup.runtimes.tensorrt_cuda import Device
from edge_latup.runtimes.tensorrt_options import EngineOptions, EngineRecord

FOLDER: Final = "edge-latup/tensorrt"
OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class AlteredEngineError(ArtifactError):
    """A kept engine is not the one that its record names; it was not loaded."""


def engine_folder(asked: Path | None = None) -> Path:
    """Where engines are kept: the folder asked for, else the user's cache (XDG_CACHE_HOME, or ~/.cache); made where it is missing.

    Raises:
        InputError: others may write into it, or it is another user's: whoever writes there decides what code is loaded.
    """
    folder = asked or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & OTHERS_WRITE:
        raise InputError(
            f"{folder} can be written by others, and an engine can hold code", f"chmod go-w {folder}, or name a folder of your own"
        )
    return folder


def engine_key(artifact: str, device: Device, tensorrt: str, input_shape: tuple[int, ...], options: EngineOptions) -> str:
    """SHA-256 over all that an engine depends on: the artifact's hash, GPU and its compute capability, driver, TensorRT, size, options."""
    parts = (
        artifact, device.identity, device.compute_capability, device.driver, tensorrt, "x".join(map(str, input_shape)),
        options.model_dump_json(),
    )  # fmt: skip
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def timing_cache(folder: Path, device: Device, tensorrt: str) -> Path:
    """The measured tactics of a GPU and a TensorRT, shared by all engines for them."""
    name = hashlib.sha256(f"{device.identity}\n{device.compute_capability}\n{tensorrt}".encode()).hexdigest()
    return folder / f"timing-{name[:16]}.cache"


def find_engine(folder: Path, key: str) -> EngineRecord | None:
    """The record of a kept engine; None where there is none. `read_engine` verifies the file.

    Raises:
        SpecError: the record is damaged.
    """
    path = folder / f"{key}.json"
    return read_record(EngineRecord, path) if path.exists() else None


def read_engine(folder: Path, record: EngineRecord) -> bytes:
    """The plan's bytes, once they have the hash that was recorded when it was built and tested.

    Raises:
        AlteredEngineError: the file is missing or another one; nothing was deserialised.
    """
    path = folder / Path(record.engine_file).name
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise AlteredEngineError(f"the engine {path} cannot be read: {error.strerror}", _again(path)) from error
    if hashlib.sha256(plan).hexdigest() != record.engine_sha256:
        raise AlteredEngineError(f"{path} is not the engine that was built here (its SHA-256 is another); it was not loaded", _again(path))
    return plan


def _again(path: Path) -> str:
    record = path.with_name(f"{path.name.partition('-')[0]}.json")
    return f"find out who changed it; then delete it and {record}, and the engine is built again"


def forget_engine(folder: Path, key: str) -> None:
    """Remove an engine's record and then the engine, so that it is built again."""
    (folder / f"{key}.json").unlink(missing_ok=True)
    for path in folder.glob(f"{key}-*.engine"):
        path.unlink(missing_ok=True)


def engine_name(key: str, plan: Path) -> str:
    """An engine's own file name: with its hash, so that two builds at once never mix one's engine with the other's record."""
    return f"{key}-{sha256_of(plan)[:12]}.engine"


def keep_engine(folder: Path, key: str, plan: Path, record: EngineRecord) -> None:
    """Put an engine into its place and then its record, each in one step: without a record there is no engine."""
    plan.chmod(0o600)
    plan.replace(folder / record.engine_file)
    write_record(record, folder / f"{key}.json")
