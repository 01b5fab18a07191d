"""A small bundle full of code that would leave a mark if any of it ran, the means to falsify it, and a watch over what a reader does."""

from __future__ import annotations

import datetime
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_latup.bundle.canonical import canonical_bytes
from edge_latup.bundle.keys import KeyFacts, PublicKey, SigningKey, public_key_of
from edge_latup.bundle.manifest import MANIFEST_NAME, SIGNATURE_NAME, BundleManifest, Role, Signature
from edge_latup.bundle.sign import files_in, sign_bundle
from edge_latup.bundle.tarball import write_tar
from edge_latup.bundle.ustar import END, header, padding
from edge_latup.bundle.zipped import write_zip
from edge_latup.bundle.zstd import zstd_module

CREATED: Final = datetime.date(2026, 11, 1)
TODAY: Final = datetime.date(2026, 11, 21)
MARK: Final = "edge-latup-code-of-the-bundle-ran"
LABEL: Final = "latup-demo-1.2.0"
_PYTHON: Final = f"import pathlib, tempfile\npathlib.Path(tempfile.gettempdir(), {MARK!r}).touch()\n".encode()
_SHELL: Final = f'#!/bin/sh\ntouch "${{TMPDIR:-/tmp}}/{MARK}"\n'.encode()
WHEEL: Final = f"wheels/{'long-' * 20}cp310-abi3-manylinux_2_28_x86_64.whl"
"""More than the 100 characters that fit into a plain tar header."""
FILES: Final[dict[str, tuple[bytes, bool]]] = {
    "README.txt": (b"For the IT department.\n" * 40, False),
    "artifact/manifest.json": (b'{"name": "tiny"}\n', False),
    "artifact/model.onnx": (bytes(range(256)) * 20, False),
    "edge_latup/__init__.py": (_PYTHON, False),
    "empty": (b"", False),
    "install.ps1": (b"exit 1\r\n", False),
    "install.sh": (_SHELL, True),
    "pydantic.py": (_PYTHON, False),
    "segment": (_SHELL, True),
    "sitecustomize.py": (_PYTHON, False),
    "start.pth": (b"import sitecustomize\n", False),
    WHEEL: (bytes((i * i) % 251 for i in range(3000)), False),
}
FORMS: Final = ("folder", "tar.zst", "zip")


def signing_key(seed: int = 1, **facts: Any) -> SigningKey:
    """Always the same key for the same seed."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    given: dict[str, Any] = {"owner": "Imaging group", "created": CREATED, **facts}
    public = public_key_of(KeyFacts(public_key=private.public_key().public_bytes_raw().hex(), **given))
    return SigningKey(private=private, public=public)


def write_key(folder: Path, key: PublicKey) -> Path:
    """Its public-key.json."""
    path = folder / f"{key.key_id}.json"
    path.write_bytes(canonical_bytes(key))
    return path


@dataclass(frozen=True)
class Member:
    """One file of a bundle, the manifest and its signature too."""

    path: str
    content: bytes
    executable: bool = False


def role_of(path: str) -> Role:
    return "artifact" if path.startswith("artifact/") else "wheel" if path.startswith("wheels/") else "other"


def write_bundle(folder: Path, key: SigningKey, **changes: Any) -> BundleManifest:
    """A signed folder."""
    place([Member(path, *file) for path, file in FILES.items()], folder)
    given: dict[str, Any] = {
        "name": "latup-demo", "version": "1.2.0", "created": CREATED, "key_id": key.public.key_id, "target": "x86-64", "pythons": ("3.11",),
        "files": files_in(folder, role_of),
    }  # fmt: skip
    manifest = BundleManifest(**{**given, **changes})
    sign_bundle(folder, manifest, key)
    return manifest


def members_of(folder: Path) -> list[Member]:
    """A signed folder's files, in the order of an archive."""
    manifest = json.loads((folder / MANIFEST_NAME).read_bytes())
    names = [MANIFEST_NAME, SIGNATURE_NAME, *(file["path"] for file in manifest["files"])]
    executable = {file["path"]: file["executable"] for file in manifest["files"]}
    return [Member(name, (folder / name).read_bytes(), executable.get(name, False)) for name in names]


def signed(content: bytes, key: SigningKey, **changes: str) -> list[Member]:
    """Any bytes as a manifest, with a good signature over them."""
    signature = Signature(**{"key_id": key.public.key_id, "signature": key.private.sign(content).hex(), **changes})
    return [Member(MANIFEST_NAME, content), Member(SIGNATURE_NAME, canonical_bytes(signature))]


def place(members: Iterable[Member], folder: Path) -> Path:
    """As a folder; a name that no file system takes is an error of the test."""
    folder.mkdir(parents=True, exist_ok=True)
    for member in members:
        path = folder / member.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(member.content)
        path.chmod(0o755 if member.executable else 0o644)
    return folder


def _rows(members: Sequence[Member]) -> Iterator[tuple[str, int, bool, Iterable[bytes]]]:
    for member in members:
        yield member.path, len(member.content), member.executable, [member.content]


def archive_of(form: str, members: Sequence[Member], label: str = LABEL) -> bytes:
    """As an archive, written as the packager writes it, whatever the members are."""
    file = io.BytesIO()
    (write_tar if form == "tar.zst" else write_zip)(file, label, _rows(members))
    return file.getvalue()


def write_form(form: str, members: Sequence[Member], folder: Path, label: str = LABEL) -> Path:
    """In one of the forms, at a path in `folder`; a tar is packed quickly, as most tests care for what is in it."""
    if form == "folder":
        return place(members, folder / "bundle")
    path = folder / f"bundle.{form}"
    path.write_bytes(packed(tar_of(members, label)) if form == "tar.zst" else archive_of(form, members, label))
    return path


def tar_of(members: Sequence[Member], label: str = LABEL) -> bytes:
    """The tar inside, not compressed."""
    parts = [
        part for m in members
        for part in (header(f"{label}/{m.path}", len(m.content), executable=m.executable), m.content, padding(len(m.content)))
    ]  # fmt: skip
    return b"".join(parts) + END


def packed(tar: bytes, **options: Any) -> bytes:
    """A tar as Zstandard, with checksum."""
    zstd = zstd_module()
    content: bytes = zstd.compress(tar, options={zstd.CompressionParameter.checksum_flag: 1, **options})
    return content


def unpacked(archive: bytes) -> bytes:
    """The tar inside."""
    content: bytes = zstd_module().decompress(archive)
    return content


Alter = Callable[[list[Member]], list[Member]]


def changed(path: str, change: Callable[[bytes], bytes]) -> Alter:
    """The content of one file."""
    return lambda members: [replace(m, content=change(m.content)) if m.path == path else m for m in members]


def moved(path: str, to: str) -> Alter:
    """Its name."""
    return lambda members: [replace(m, path=to) if m.path == path else m for m in members]


def without(path: str) -> Alter:
    """Its being there."""
    return lambda members: [m for m in members if m.path != path]


def added(path: str, content: bytes = _PYTHON) -> Alter:
    """One file more, where its name would be sorted to; behind all others if it is the last."""

    def alter(members: list[Member]) -> list[Member]:
        place = next((i for i, m in enumerate(members) if i > 1 and m.path > path), len(members))
        return [*members[:place], Member(path, content), *members[place:]]

    return alter


# What a reader does, told by Python itself (PEP 578). A hook cannot be taken off again, so it is there once, and asleep.

RUNS: Final = ("exec", "import", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile", "ctypes.dlopen")
MAKES: Final = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.remove", "os.rmdir")
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Deeds:
    """What happened while the watch was on."""

    ran: list[str] = field(default_factory=list)
    wrote: list[Path] = field(default_factory=list)


_watched: list[tuple[Deeds, Path]] = []


def _theirs(names: Iterable[str | bytes | Path], bundle: Path) -> list[Path]:
    """Without the byte code that Python keeps of our own modules, when one is imported for the first time."""
    paths = [Path(os.fsdecode(name)) for name in names]
    return [path for path in paths if bundle in path.parents or "__pycache__" not in path.parts]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    deeds, bundle = _watched[-1]
    if event in RUNS:
        where = str(getattr(arguments[0], "co_filename", arguments[0])) if arguments else ""
        ours = event not in ("exec", "import") or str(bundle) in where or (event == "import" and str(bundle) in str(arguments[1:3]))
        if ours:
            deeds.ran.append(f"{event} {where}")
    elif event == "open" and isinstance(arguments[0], (str, bytes)) and (arguments[2] or 0) & _WRITING:
        deeds.wrote += _theirs([arguments[0]], bundle)
    elif event in MAKES:
        names = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
        deeds.wrote += _theirs([name for name in names if isinstance(name, (str, bytes, Path))], bundle)


@contextmanager
def watched(bundle: Path) -> Iterator[Deeds]:
    """Everything that is run from `bundle`, or run at all as a process or library, and every path that is written."""
    if _hook not in _installed:
        sys.addaudithook(_hook)
        _installed.append(_hook)
    deeds = Deeds()
    _watched.append((deeds, bundle))
    try:
        yield deeds
    finally:
        _watched.pop()


_installed: list[Any] = []


def installed_whole() -> bool:
    """Whether edge-latup is installed as a wheel, of which bundles are made."""
    try:
        return any(str(path) == "edge_latup/__init__.py" for path in distribution("edge-latup").files or ())
    except PackageNotFoundError:
        return False
