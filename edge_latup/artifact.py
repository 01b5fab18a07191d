"""Artifact folders: a model in one format and its manifest. Never edited in place."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_latup.errors import ArtifactError, SpecError
from edge_latup.manifest import MODEL_FILES, FileRecord, Manifest
from edge_latup.onnx_wire import refuse_external_data
from edge_latup.records import read_record, write_record

MANIFEST_NAME: Final = "manifest.json"
CHUNK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A verified artifact on disk."""

    folder: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The file a runtime opens."""
        return self.folder / MODEL_FILES[self.manifest.format][0]

    @property
    def digest(self) -> str:
        """SHA-256 over the model files' own hashes: the identity of the model, whatever its folder is called."""
        parts = "".join(f"{file.name}:{file.sha256}\n" for file in sorted(self.manifest.files, key=lambda file: file.name))
        return hashlib.sha256(parts.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def open_artifact(folder: Path) -> Artifact:
    """Open an artifact and check every file against its manifest.

    Raises:
        ArtifactError: the folder is no artifact, a file is missing or altered, or the model keeps weights outside the artifact.
    """
    manifest = _read_manifest(folder)
    for record in manifest.files:
        _check_file(folder / record.name, record)
    recorded = {record.name for record in manifest.files}
    if missing := [name for name in MODEL_FILES[manifest.format] if name not in recorded]:
        raise ArtifactError(f"{folder / MANIFEST_NAME} records no hash for {', '.join(missing)}", "make the artifact again")
    opened = Artifact(folder=folder, manifest=manifest)
    refuse_outside(opened)
    return opened


def refuse_outside(artifact: Artifact) -> None:
    """Refuse a model that reads weights from files outside the artifact, which no hash covers.

    Raises:
        ArtifactError: it is ONNX with external data.
    """
    if artifact.manifest.format == "onnx":
        refuse_external_data(artifact.model_path)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        why = f"it has no {MANIFEST_NAME}" if folder.exists() else "it does not exist"
        raise ArtifactError(f"{folder} is not an artifact: {why}", "make an artifact: edge-latup export CHECKPOINT --out ARTIFACT")
    try:
        return read_record(Manifest, path)
    except SpecError as error:
        raise ArtifactError(error.message, "make the artifact again with this version of edge-latup") from error


def _check_file(path: Path, record: FileRecord) -> None:
    if Path(record.name).name != record.name:
        raise ArtifactError(f"{path.parent / MANIFEST_NAME} names a file outside the artifact", "do not use this artifact")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", "copy the whole artifact folder again")
    if path.stat().st_size != record.size or sha256_of(path) != record.sha256:
        raise ArtifactError(f"{path} is not the file its manifest recorded", "copy the artifact again; artifacts are never edited in place")


def write_artifact(
    folder: Path,
    manifest: Manifest,
    write_model: Callable[[Path], None],
    *,
    examine: Callable[[Artifact], Manifest] | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Make an artifact beside its final place, examine it there, and rename it into place.

    Args:
        folder: the artifact's folder.
        manifest: without files; their hashes are added.
        write_model: writes the model files into the folder it is given.
        examine: opens the draft and returns its manifest completed with what was measured; raises to refuse it.
        overwrite: replace an existing artifact.

    Raises:
        ArtifactError: `folder` exists (and `overwrite` is not set, or it is no artifact), or a model file was not written.
    """
    refuse_existing(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        write_model(temporary)
        files = tuple(_record(temporary / name) for name in MODEL_FILES[manifest.format])
        complete = manifest.model_copy(update={"files": files})
        if examine is not None:
            complete = examine(Artifact(folder=temporary, manifest=complete))
        write_record(complete, temporary / MANIFEST_NAME)
        temporary.chmod(0o755)
        refuse_existing(folder, overwrite)  # another process may have been quicker
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Artifact(folder=folder, manifest=complete)


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`; an artifact that is there is removed only once the new one has its place."""
    if not folder.exists():
        temporary.rename(folder)
        return
    aside = temporary.with_name(f"{temporary.name}.old")
    folder.rename(aside)
    try:
        temporary.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Refuse to write where something is; with `overwrite`, where something other than an artifact is.

    Raises:
        ArtifactError: as said.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not overwrite:
        raise ArtifactError(f"{folder} exists", "choose another --out, or add --overwrite")
    if foreign := _foreign(folder):
        raise ArtifactError(f"{folder} exists and {foreign}, so it is not replaced", "choose another --out")


def _foreign(folder: Path) -> str:
    """What `folder` is, or holds, besides an artifact; empty when it is an artifact and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return "is not a folder"
    try:
        known = {MANIFEST_NAME, *(file.name for file in _read_manifest(folder).files)}
    except ArtifactError:
        return "is not an artifact"
    others = sorted(path.name for path in folder.iterdir() if path.name not in known)
    return f"holds {others[0]} besides the artifact" if others else ""


def _record(path: Path) -> FileRecord:
    if not path.is_file():
        raise ArtifactError(f"the model file {path.name} was not written", "this is a bug in the step that makes the artifact")
    return FileRecord(name=path.name, size=path.stat().st_size, sha256=sha256_of(path))
