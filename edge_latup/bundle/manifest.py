"""What a bundle holds, and for whom: manifest.json, the only file that is signed; it vouches for all others by hash."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from edge_latup.bundle.names import collision_in, fault_of
from edge_latup.errors import InputError
from edge_latup.manifest import Format, Precision, RuntimeName, Sha256
from edge_latup.records import Record

MANIFEST_NAME: Final = "manifest.json"
SIGNATURE_NAME: Final = "manifest.sig"
RESERVED: Final = (MANIFEST_NAME, SIGNATURE_NAME)

SCHEMA: Final = 1
"""The schema written; a manifest of a later one is refused, because its rules are not known here."""
OLDEST_SCHEMA: Final = 1
"""The oldest schema read; raised when an older one turns out to be too weak, so that nobody can go back to it."""

MAX_MANIFEST: Final = 4 << 20
MAX_SIGNATURE: Final = 1 << 10
MAX_FILES: Final = 20_000
MAX_FILE: Final = (4 << 30) - (64 << 20)
"""Bytes; below what a zip without extensions holds."""

Role = Literal[
    "artifact", "wheel", "lock", "installer", "launcher", "runtime", "golden-case", "model-card", "sbom", "licence", "change-record",
    "document", "other",
]  # fmt: skip
"""What a file is in the bundle for."""
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,39}$")]
"""A word that can be part of a file's name."""
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class BundleFile(Record):
    """One file of the bundle."""

    path: str
    """POSIX, relative to the bundle."""
    size: int = Field(ge=0, le=MAX_FILE)
    """Bytes."""
    sha256: Sha256
    executable: bool = False
    role: Role

    @field_validator("path")
    @classmethod
    def _portable(cls, path: str) -> str:
        if fault := fault_of(path):
            raise ValueError(f"the path {path!r} {fault}")
        return path


class BundledArtifact(Record):
    """An artifact in the bundle, in short; its own manifest.json has the rest."""

    folder: str
    """POSIX, relative to the bundle."""
    digest: Sha256
    """As `artifact.Artifact.digest`."""
    format: Format
    runtimes: tuple[RuntimeName, ...]
    precision: Precision


class BundleManifest(Record):
    """Written as manifest.json at the top of the bundle, in canonical form."""

    kind: Literal["edge-latup bundle"] = "edge-latup bundle"
    schema_version: Literal[1] = 1
    name: Label
    version: Label
    created: datetime.date
    """In UTC. A date, not a time: packaging again on the same inputs gives the same bytes."""
    expires: datetime.date | None = None
    """The last day (UTC) on which the bundle verifies; None for no end."""
    key_id: KeyId
    """Of the key that signs; a signature by another is refused, even one that is trusted elsewhere."""
    target: Label
    pythons: tuple[Annotated[str, Field(pattern=r"^3\.[0-9]{1,2}$")], ...] = ()
    """Versions the wheelhouse serves; empty for a bundle that brings its own."""
    artifacts: tuple[BundledArtifact, ...] = ()
    previous: Sha256 | None = None
    """SHA-256 of the manifest.json of the bundle that this one replaces, to which its change record refers."""
    files: tuple[BundleFile, ...] = Field(min_length=1, max_length=MAX_FILES)
    """Every file but manifest.json and manifest.sig, sorted by path."""

    @model_validator(mode="after")
    def _one_file_one_name(self) -> BundleManifest:
        paths = [file.path for file in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("files are not sorted by path, or one is named twice")
        if pair := collision_in([*RESERVED, *paths]):
            raise ValueError(f"{pair[0]!r} and {pair[1]!r} are one name on some systems")
        for artifact in self.artifacts:
            if not any(path.startswith(f"{artifact.folder}/") for path in paths):
                raise ValueError(f"the artifact {artifact.folder!r} has no file")
        return self

    @property
    def size(self) -> int:
        """Bytes of all files but the manifest and its signature."""
        return sum(file.size for file in self.files)

    @property
    def label(self) -> str:
        """Name and version: the folder that an archive's files lie in."""
        return f"{self.name}-{self.version}"


class Signature(Record):
    """Written as manifest.sig, in canonical form."""

    kind: Literal["edge-latup signature"] = "edge-latup signature"
    schema_version: Literal[1] = 1
    algorithm: Literal["ed25519"] = "ed25519"
    key_id: KeyId
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    """Ed25519 (RFC 8032) over the bytes of manifest.json."""


def creation_date(environment: Mapping[str, str] = os.environ) -> datetime.date:
    """Today in UTC, or the day of SOURCE_DATE_EPOCH, which makes packaging reproducible (reproducible-builds.org).

    Raises:
        InputError: SOURCE_DATE_EPOCH is not a number of seconds.
    """
    text = environment.get("SOURCE_DATE_EPOCH")
    if text is None:
        return datetime.datetime.now(datetime.timezone.utc).date()
    try:
        return datetime.datetime.fromtimestamp(int(text), datetime.timezone.utc).date()
    except (ValueError, OverflowError, OSError):
        raise InputError(f"SOURCE_DATE_EPOCH is {text!r}, not seconds since 1970", "set it to a whole number, or unset it") from None
