"""Makes a pair of keys: files that appear whole or not at all, and never over older ones."""

from __future__ import annotations

import datetime
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_latup.bundle.canonical import canonical_bytes
from edge_latup.bundle.keys import MAX_PASSPHRASE, PRIVATE_NAME, PUBLIC_NAME, PUBLIC_PEM_NAME, KeyFacts, PublicKey, public_key_of
from edge_latup.errors import InputError

MODES: Final = {PRIVATE_NAME: 0o600, PUBLIC_NAME: 0o644, PUBLIC_PEM_NAME: 0o644}


def make_keys(
    folder: Path, owner: str, passphrase: bytes | None, *, created: datetime.date, expires: datetime.date | None = None
) -> PublicKey:
    """Write signing-key.pem (PKCS #8, mode 0600), public-key.json and public-key.pem (the same key, for OpenSSL) into `folder`.

    Args:
        folder: made if missing.
        owner: whom the clinic will see as the maker; printable ASCII.
        passphrase: encrypts the private key; None leaves it in the clear.
        created: in UTC.
        expires: the last day on which bundles signed with it verify.

    Raises:
        InputError: one of the files exists, or cannot be written with its mode; the owner, a date or the passphrase is not usable.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _check(owner, passphrase, created, expires)
    private = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    half = private.public_key()
    public = public_key_of(KeyFacts(owner=owner, created=created, expires=expires, public_key=half.public_bytes_raw().hex()))
    pem, info = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    files = {
        PRIVATE_NAME: private.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption),
        PUBLIC_NAME: canonical_bytes(public),
        PUBLIC_PEM_NAME: half.public_bytes(pem, info),
    }
    _write_new(folder, files)
    return public


def _check(owner: str, passphrase: bytes | None, created: datetime.date, expires: datetime.date | None) -> None:
    if not owner or len(owner) > 200 or not (owner.isascii() and owner.isprintable()):
        raise InputError(f"the owner {owner!r} is not 1 to 200 printable ASCII characters", "write it as a terminal anywhere can show it")
    if passphrase is not None and not 0 < len(passphrase) <= MAX_PASSPHRASE:
        raise InputError(f"the passphrase is empty or longer than {MAX_PASSPHRASE} bytes", "choose a sentence")
    if expires is not None and expires < created:
        raise InputError(f"the key would expire on {expires}, before it is made on {created}", "choose a later --expires")


def _write_new(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files or none."""
    done: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            _refuse_existing(folder / name)
        for name, content in files.items():
            _create(folder / name, content, MODES[name])
            done.append(folder / name)
    except (OSError, InputError) as error:
        for path in done:
            path.unlink(missing_ok=True)
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} cannot be written: {error.strerror or error}", "choose another --out") from error


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} exists, and a key is never overwritten", "choose another --out")


def _create(path: Path, content: bytes, mode: int) -> None:
    """Make a file that was not there. mkstemp opens with mode 0600, so the key is never open to others, not for an instant."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        if os.name == "posix" and stat.S_IMODE(temporary.stat().st_mode) & 0o777 != mode:
            raise InputError(f"{path.parent} keeps no file permissions", "choose a folder on a disk that does: the key must be its owner's")
        try:
            os.link(temporary, path)  # unlike a rename, a link never replaces
        except FileExistsError:
            _refuse_existing(path)
    finally:
        temporary.unlink(missing_ok=True)
