"""Ed25519 keys: the private one stays with the maker, the public one reaches the clinic by another way than the bundle."""

from __future__ import annotations

import datetime
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, ValidationError, model_validator

from edge_latup.bundle.canonical import canonical_bytes
from edge_latup.bundle.manifest import OLDEST_SCHEMA, KeyId
from edge_latup.errors import InputError, MissingDependencyError, install_hint
from edge_latup.records import Record, summary_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE_NAME: Final = "signing-key.pem"
PUBLIC_NAME: Final = "public-key.json"
PUBLIC_PEM_NAME: Final = "public-key.pem"
MAX_KEY_FILE: Final = 16 << 10
MAX_PASSPHRASE: Final = 1023
MAKE_KEYS: Final = "make keys with: edge-latup package keygen --out FOLDER"
"""Bytes; OpenSSL takes no longer one."""


class KeyFacts(Record):
    """What the key id vouches for: who reads the id aloud over the telephone has confirmed all of it."""

    kind: Literal["edge-latup public key"] = "edge-latup public key"
    schema_version: Literal[1] = 1
    algorithm: Literal["ed25519"] = "ed25519"
    owner: str = Field(min_length=1, max_length=200, pattern=r"^[ -~]+$")
    """Printable ASCII, as a terminal will show it."""
    created: datetime.date
    expires: datetime.date | None = None
    """The last day (UTC) on which bundles signed with it verify; None for no end."""
    minimum_schema: int = Field(default=OLDEST_SCHEMA, ge=1)
    """Manifests of an older schema are refused under this key, so that nobody can go back to weaker rules."""
    public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The 32 bytes of RFC 8032."""


class PublicKey(KeyFacts):
    """Written as public-key.json."""

    key_id: KeyId
    """First half of the SHA-256 of all other fields in canonical form."""

    @model_validator(mode="after")
    def _names_itself(self) -> PublicKey:
        if self.key_id != key_id_of(self):
            raise ValueError("key_id is not that of the other fields, so one of them was changed")
        return self


@dataclass(frozen=True, kw_only=True, repr=False)
class SigningKey:
    """Both halves. It has no representation, so that no log can hold it."""

    private: Ed25519PrivateKey
    public: PublicKey


def key_id_of(facts: KeyFacts) -> str:
    """First half of the SHA-256 of the facts in canonical form."""
    plain = KeyFacts(**facts.model_dump(exclude={"key_id"}))
    return hashlib.sha256(canonical_bytes(plain)).hexdigest()[:32]


def public_key_of(facts: KeyFacts) -> PublicKey:
    """The facts with their id."""
    return PublicKey(**facts.model_dump(), key_id=key_id_of(facts))


def read_public_key(path: Path) -> PublicKey:
    """Read public-key.json.

    Raises:
        InputError: it is missing, is no public key, or was changed since its id was made.
    """
    content = _read_key_file(path, f"give the {PUBLIC_NAME} that the maker sent by another way than the bundle")
    try:
        return PublicKey.model_validate_json(content)
    except ValidationError as error:
        hint = f"give the {PUBLIC_NAME} that `edge-latup package keygen` made, unchanged"
        raise InputError(f"{path} is not a public key: {summary_of(error)}", hint) from error


def read_signing_key(path: Path, public: PublicKey, passphrase: bytes | None) -> SigningKey:
    """Read the private half of `public`.

    Raises:
        InputError: the file is missing, open to others, of another key, or the passphrase is not its own.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read_key_file(path, MAKE_KEYS)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"{path} can be read by others than its owner", f"chmod 600 {path}; if others had access, make a new key")
    try:
        private = load_pem_private_key(content, passphrase)
    except TypeError:  # one was given and none is needed, or the other way round
        needs = "has no passphrase, but one was given" if passphrase else "needs its passphrase"
        raise InputError(f"{path} {needs}", "see --passphrase-file and --no-passphrase") from None
    except ValueError:
        raise InputError(f"{path} is no private key, or the passphrase is wrong", f"give {PRIVATE_NAME} and its passphrase") from None
    if not isinstance(private, Ed25519PrivateKey) or private.public_key().public_bytes_raw().hex() != public.public_key:
        raise InputError(f"{path} is not the private half of the key {public.key_id}", "give the two files of one keygen")
    return SigningKey(private=private, public=public)


def is_encrypted(path: Path) -> bool:
    """Whether a private key asks for a passphrase, by the label of its PEM block.

    Raises:
        InputError: the file cannot be read.
    """
    return b"ENCRYPTED" in _read_key_file(path, MAKE_KEYS).split(b"\n", 1)[0]


def read_passphrase(path: Path) -> bytes:
    """The first line of a file, which must be its only one.

    Raises:
        InputError: it cannot be read, is empty, or has more lines.
    """
    lines = _read_key_file(path, "give a file that holds the passphrase and nothing else").splitlines()
    if len(lines) != 1 or not lines[0]:
        raise InputError(f"{path} does not hold one line with a passphrase", "write the passphrase into a file, and nothing else")
    return lines[0]


def is_signed_by(public: PublicKey, signature: bytes, content: bytes) -> bool:
    """Whether `signature` is `public`'s over `content`.

    Raises:
        MissingDependencyError: cryptography is not installed; without it nothing is trusted.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise MissingDependencyError("a signature is checked with cryptography, which is missing", install_hint("core")) from None
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public.public_key)).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _read_key_file(path: Path, hint: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint) from None
    if len(content) > MAX_KEY_FILE:
        raise InputError(f"{path} is too large for a key", hint)
    return content
