"""The maker's side: list a folder, sign the list, and write the folder as an archive."""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from edge_latup.artifact import sha256_of
from edge_latup.bundle.canonical import canonical_bytes, from_canonical
from edge_latup.bundle.keys import PublicKey, SigningKey
from edge_latup.bundle.manifest import (
    MANIFEST_NAME,
    MAX_FILE,
    MAX_MANIFEST,
    RESERVED,
    SIGNATURE_NAME,
    BundleFile,
    BundleManifest,
    Role,
    Signature,
)
from edge_latup.bundle.names import fault_of, shown
from edge_latup.bundle.source import BLOCK, checked
from edge_latup.bundle.tarball import write_tar
from edge_latup.bundle.zipped import write_zip
from edge_latup.errors import InputError
from edge_latup.records import replacing

Members = Iterable[tuple[str, int, bool, Iterable[bytes]]]
WRITERS: Final[dict[str, Callable[[IO[bytes], str, Members], None]]] = {".tar.zst": write_tar, ".zip": write_zip}


def files_in(folder: Path, role_of: Callable[[str], Role]) -> tuple[BundleFile, ...]:
    """Every file of a folder but the manifest and its signature, hashed and sorted.

    Args:
        folder: what becomes the bundle.
        role_of: what the file at a POSIX path is for.

    Raises:
        InputError: something in it cannot be in a bundle: a link, a special file, an empty folder, a name not portable.
    """
    paths = sorted(name for name in _names(folder) if name not in RESERVED)
    return tuple(_file(folder, path, role_of(path)) for path in paths)


def _names(folder: Path) -> Iterator[str]:
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(above, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise InputError(f"{shown(str(path))} is a link or a special file", "put a copy of the file in its place")
        if not folders and not files:
            raise InputError(f"{shown(above)} is empty, and a bundle lists files only", "remove it")
        yield from (Path(above, name).relative_to(folder).as_posix() for name in files)


def _file(folder: Path, path: str, role: Role) -> BundleFile:
    if fault := fault_of(path):
        raise InputError(f"{shown(path)}: the path {fault}", "rename the file before it is packaged")
    facts = (folder / path).stat()
    if facts.st_size > MAX_FILE:
        raise InputError(f"{path} has {facts.st_size} bytes, at most {MAX_FILE} can be in a bundle", "split it")
    executable = bool(stat.S_IMODE(facts.st_mode) & 0o111)
    return BundleFile(path=path, size=facts.st_size, sha256=sha256_of(folder / path), executable=executable, role=role)


def check_dates(created: datetime.date, public: PublicKey) -> None:
    """Refuse to sign with a key on a day on which it is not valid.

    Raises:
        InputError: it is so.
    """
    if created < public.created or (public.expires is not None and created > public.expires):
        until = f" to {public.expires}" if public.expires else ""
        raise InputError(f"{created} is outside the key's dates, {public.created}{until}", "sign with a key that is valid")


def sign_bundle(folder: Path, manifest: BundleManifest, key: SigningKey) -> None:
    """Write manifest.json and manifest.sig; until the second is in place, the folder does not verify.

    Raises:
        InputError: the manifest asks for another key, was made outside the key's dates, or is too large.
    """
    public, content = key.public, canonical_bytes(manifest)
    if manifest.key_id != public.key_id:
        raise InputError(f"the manifest asks for the key {manifest.key_id}, not {public.key_id}", "sign with the key it names")
    check_dates(manifest.created, public)
    if len(content) > MAX_MANIFEST:
        raise InputError(f"the manifest has {len(content)} bytes, at most {MAX_MANIFEST} are read", "package fewer files")
    signature = Signature(key_id=public.key_id, signature=key.private.sign(content).hex())
    for name, written in ((MANIFEST_NAME, content), (SIGNATURE_NAME, canonical_bytes(signature))):
        with replacing(folder / name) as temporary:
            temporary.write_bytes(written)


def write_archive(folder: Path, out: Path) -> None:
    """Write a signed folder as `out`, a .tar.zst or .zip: the same folder, the same bytes.

    Raises:
        InputError: `out` has another ending or exists, or the bundle is too large for it.
        VerificationError: a file is not what the folder's manifest says.
    """
    ending = next((ending for ending in WRITERS if out.name.endswith(ending)), None)
    if ending is None:
        raise InputError(f"{out} is no archive that a bundle can be", f"choose a name that ends in {' or '.join(WRITERS)}")
    if out.exists():
        raise InputError(f"{out} exists", "choose another --out")
    manifest = from_canonical(BundleManifest, (folder / MANIFEST_NAME).read_bytes(), MANIFEST_NAME)
    with replacing(out) as temporary, temporary.open("wb") as file:
        WRITERS[ending](file, manifest.label, _members(folder, manifest))


def _members(folder: Path, manifest: BundleManifest) -> Iterator[tuple[str, int, bool, Iterable[bytes]]]:
    for name in RESERVED:
        content = (folder / name).read_bytes()
        yield name, len(content), False, [content]
    for file in manifest.files:
        yield file.path, file.size, file.executable, checked(file, _blocks(folder / file.path))


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block
