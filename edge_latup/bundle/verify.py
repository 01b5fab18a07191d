"""Is a bundle what its maker signed? Read once, in blocks of 1 MiB, without unpacking or running anything of it.

The signature is checked before the manifest is parsed, and the manifest before any other file is looked at. See docs/bundle-trust.md.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_latup.bundle.canonical import from_canonical
from edge_latup.bundle.folder import FolderSource
from edge_latup.bundle.keys import PublicKey, is_signed_by
from edge_latup.bundle.manifest import MANIFEST_NAME, OLDEST_SCHEMA, SCHEMA, SIGNATURE_NAME, BundleFile, BundleManifest, Signature
from edge_latup.bundle.refusal import refused
from edge_latup.bundle.source import Head, Source, checked
from edge_latup.bundle.tarball import TarSource
from edge_latup.bundle.zipfields import LOCAL as ZIP_MAGIC
from edge_latup.bundle.zipped import ZipSource
from edge_latup.bundle.zstd import MAGIC as ZSTD_MAGIC
from edge_latup.errors import InputError

Form = Literal["folder", "tar.zst", "zip"]
Receive = Callable[[BundleFile, Iterable[bytes]], None]
"""Takes a file and its bytes, all of which it reads."""

SOURCES: Final[dict[Form, Callable[[Path], Source]]] = {"folder": FolderSource, "tar.zst": TarSource, "zip": ZipSource}
ANOTHER_KEY: Final = "ask the bundle's maker which key it is signed with, by another way than the bundle came"
ANEW: Final = "ask the bundle's maker for a new bundle"
UPDATE: Final = "update edge-latup on this machine, then verify again"


@dataclass(frozen=True, kw_only=True)
class VerifiedBundle:
    """What was true when the bundle was read; its files may have changed since (see `unpack.unpack_verified`)."""

    path: Path
    form: Form
    manifest: BundleManifest
    head: Head
    """The bytes of manifest.json and manifest.sig."""
    key: PublicKey

    @property
    def digest(self) -> str:
        """SHA-256 of manifest.json: the identity of the bundle, whatever form it has."""
        return hashlib.sha256(self.head.manifest).hexdigest()


def verify(bundle: Path, key: PublicKey, *, today: datetime.date | None = None) -> VerifiedBundle:
    """Check a folder, .tar.zst or .zip against a public key.

    Args:
        bundle: its form is told by its first bytes, not by its name.
        key: what is trusted; got by another way than the bundle.
        today: for dates of expiry; the clock's in UTC unless given.

    Raises:
        VerificationError: it is not what was signed; the message names the file.
        InputError: there is nothing at `bundle`.
    """
    return read_bundle(bundle, key, _drain, today=today)


def read_bundle(bundle: Path, key: PublicKey, receive: Receive, *, today: datetime.date | None = None) -> VerifiedBundle:
    """`verify`, with every file passed to `receive` as it is read: before its hash is known, so believe it only once this returns.

    Raises:
        VerificationError: as `verify`.
        InputError: as `verify`.
    """
    form = form_of(bundle)
    try:
        with SOURCES[form](bundle) as source:
            head = source.head()
            manifest = trusted_manifest(head, key, today or datetime.datetime.now(datetime.timezone.utc).date())
            for file, blocks in source.files(manifest):
                receive(file, checked(file, blocks))
    except OSError as error:
        raise refused(str(error.filename or bundle.name), f"cannot be read: {error.strerror or error}") from error
    return VerifiedBundle(path=bundle, form=form, manifest=manifest, head=head, key=key)


def form_of(bundle: Path) -> Form:
    """What kind of bundle stands at a path.

    Raises:
        VerificationError: it is none.
        InputError: nothing is there.
    """
    if bundle.is_dir():
        return "folder"
    if not bundle.is_file():
        raise InputError(f"{bundle} is neither a folder nor a file", "give a bundle: a folder, .tar.zst or .zip")
    try:
        with bundle.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise refused(bundle.name, f"cannot be read: {error.strerror}") from error
    forms: dict[bytes, Form] = {ZIP_MAGIC: "zip", ZSTD_MAGIC: "tar.zst"}
    if magic not in forms:
        raise refused(bundle.name, "is not a bundle: it begins neither as a .zip nor as a .tar.zst")
    return forms[magic]


def trusted_manifest(head: Head, key: PublicKey, today: datetime.date) -> BundleManifest:
    """Believe a manifest, or refuse it.

    Raises:
        VerificationError: another key signed it, or none; a date has passed; its schema is older or newer than what is read here.
    """
    signature = from_canonical(Signature, head.signature, SIGNATURE_NAME)
    if signature.key_id != key.key_id:
        raise refused(SIGNATURE_NAME, f"is by the key {signature.key_id}, not by {key.key_id} ({key.owner})", ANOTHER_KEY)
    if not is_signed_by(key, bytes.fromhex(signature.signature), head.manifest):
        raise refused(MANIFEST_NAME, f"was altered, or not signed with the key {key.key_id}")
    if key.expires is not None and today > key.expires:
        raise refused(SIGNATURE_NAME, f"is by a key that expired on {key.expires}; today is {today}", ANEW)
    _check_schema(head.manifest, key)
    manifest = from_canonical(BundleManifest, head.manifest, MANIFEST_NAME)
    if manifest.key_id != key.key_id:
        raise refused(MANIFEST_NAME, f"asks for the key {manifest.key_id}, but was signed with {key.key_id}", ANOTHER_KEY)
    if manifest.expires is not None and today > manifest.expires:
        raise refused(MANIFEST_NAME, f"expired on {manifest.expires}; today is {today}", ANEW)
    return manifest


class _AnySchema(BaseModel):
    """Of a manifest of any schema, its number."""

    model_config = ConfigDict(extra="ignore", strict=True)

    schema_version: int


def _check_schema(content: bytes, key: PublicKey) -> None:
    try:
        schema = _AnySchema.model_validate_json(content).schema_version
    except ValidationError:
        raise refused(MANIFEST_NAME, "is signed, but is not a manifest of a bundle: it gives no schema_version", ANEW) from None
    oldest = max(OLDEST_SCHEMA, key.minimum_schema)
    if schema < oldest:
        raise refused(MANIFEST_NAME, f"has the downgraded schema {schema}; {oldest} is the oldest that this key vouches for", ANEW)
    if schema > SCHEMA:
        raise refused(MANIFEST_NAME, f"has schema {schema}, and this edge-latup knows {SCHEMA}", UPDATE)


def _drain(_: BundleFile, blocks: Iterable[bytes]) -> None:
    for _block in blocks:
        pass
