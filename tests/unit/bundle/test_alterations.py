"""What happens to files: in a folder and in both kinds of archive, each alteration is refused and the file is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from bundles import FORMS, TODAY, WHEEL, Alter, Member, added, changed, moved, signed, signing_key, watched, without, write_form

from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.manifest import MANIFEST_NAME, MAX_MANIFEST, MAX_SIGNATURE, SIGNATURE_NAME
from edge_latup.bundle.verify import verify

MODEL: Final = "artifact/model.onnx"


def _swapped(members: list[Member]) -> list[Member]:
    one, two = (next(m.content for m in members if m.path == path) for path in ("install.sh", "segment"))
    assert one == two  # so swap two that differ
    first, second = (next(m.content for m in members if m.path == path) for path in ("install.ps1", "start.pth"))
    return changed("install.ps1", lambda _: second)(changed("start.pth", lambda _: first)(members))


def _bit(path: str) -> Alter:
    return lambda members: [replace(m, executable=not m.executable) if m.path == path else m for m in members]


def _listed_too(members: list[Member]) -> list[Member]:
    """A file that is in the manifest as well, but not in what was signed."""
    data = json.loads(members[0].content)
    data["files"].append({**data["files"][0], "path": "zz.py"})
    content = (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()
    return added("zz.py", members[2].content)([Member(MANIFEST_NAME, content), *members[1:]])


def _signed_by_another(**changes: str) -> Alter:
    return lambda members: [*signed(members[0].content, signing_key(2), **changes), *members[2:]]


def _flipped_digit(content: bytes) -> bytes:
    data = json.loads(content)
    data["signature"] = ("1" if data["signature"][0] == "0" else "0") + data["signature"][1:]
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


OURS: Final = signing_key().public.key_id
ALTERATIONS: Final[dict[str, tuple[Alter, str, str]]] = {
    "one bit flipped": (changed(MODEL, lambda c: bytes([c[0] ^ 1]) + c[1:]), MODEL, "altered"),
    "last byte changed": (changed(WHEEL, lambda c: c[:-1] + b"!"), WHEEL, "altered"),
    "cut": (changed(MODEL, lambda c: c[:-1]), MODEL, "cut altered"),
    "emptied": (changed("install.sh", lambda _: b""), "install.sh", "cut altered"),
    "appended": (changed("install.sh", lambda c: c + b"\n"), "install.sh", "longer altered"),
    "filled": (changed("empty", lambda _: b"x"), "empty", "longer altered"),
    "contents swapped": (_swapped, "install.ps1", "cut longer altered"),
    "line ends changed": (changed("install.ps1", lambda c: c.replace(b"\r\n", b"\n")), "install.ps1", "cut altered"),
    "removed": (without(MODEL), MODEL, "missing"),
    "last removed": (without(WHEEL), WHEEL, "missing"),
    "empty file removed": (without("empty"), "empty", "missing"),
    "added": (added("conftest.py"), "conftest.py", "added"),
    "added at the end": (added("zz.py"), "zz.py", "added"),
    "added below a folder": (added("artifact/model.bin"), "artifact/model.bin", "added"),
    "added in a folder": (added("lib/extra.so"), "lib", "added"),
    "hidden file added": (added(".pydistutils.cfg"), ".pydistutils.cfg", "added"),
    "bytecode added": (added("__pycache__/segment.cpython-311.pyc"), "__pycache__", "added"),
    "copy of the manifest added": (added("artifact/manifest.sig"), "artifact/manifest.sig", "added"),
    "empty file added": (added("a", b""), "a", "added"),
    "renamed": (moved("segment", "segmenu"), "segmenu", "renamed"),
    "renamed in case": (moved("README.txt", "Readme.txt"), "Readme.txt", "renamed"),
    "renamed to another folder": (moved(MODEL, "model.onnx"), "model.onnx", "added missing"),
    "same name in capitals added": (added("INSTALL.SH"), "INSTALL.SH", "added"),
    "backslash in an added name": (added("wheels\\evil.py"), "wheels", "added"),
    "made executable": (_bit("sitecustomize.py"), "sitecustomize.py", "executable permissions directory"),
    "no longer executable": (_bit("install.sh"), "install.sh", "executable permissions directory"),
    "manifest lists one more": (_listed_too, MANIFEST_NAME, "altered, or not signed"),
    "manifest altered": (changed(MANIFEST_NAME, lambda c: c.replace(b"1.2.0", b"1.2.1")), MANIFEST_NAME, "altered, or not signed"),
    "manifest with a newline more": (changed(MANIFEST_NAME, lambda c: c + b"\n"), MANIFEST_NAME, "altered, or not signed"),
    "manifest emptied": (changed(MANIFEST_NAME, lambda _: b""), MANIFEST_NAME, "altered, or not signed"),
    "manifest without end": (changed(MANIFEST_NAME, lambda _: b" " * (MAX_MANIFEST + 1)), MANIFEST_NAME, "larger than"),
    "manifest removed": (without(MANIFEST_NAME), MANIFEST_NAME, "missing"),
    "signature removed": (without(SIGNATURE_NAME), SIGNATURE_NAME, "missing"),
    "signature emptied": (changed(SIGNATURE_NAME, lambda _: b""), SIGNATURE_NAME, "not a valid Signature"),
    "signature cut": (changed(SIGNATURE_NAME, lambda c: c[:-20]), SIGNATURE_NAME, "not a valid Signature"),
    "signature garbled": (changed(SIGNATURE_NAME, lambda _: b"\xff\x00{["), SIGNATURE_NAME, "not a valid Signature"),
    "signature without end": (changed(SIGNATURE_NAME, lambda c: c + b" " * MAX_SIGNATURE), SIGNATURE_NAME, "larger than"),
    "signature spaced otherwise": (changed(SIGNATURE_NAME, lambda c: c.replace(b": ", b":")), SIGNATURE_NAME, "canonical form"),
    "signature in capitals": (changed(SIGNATURE_NAME, lambda c: c.upper()), SIGNATURE_NAME, "not a valid Signature"),
    "a digit of the signature changed": (changed(SIGNATURE_NAME, _flipped_digit), MANIFEST_NAME, "altered, or not signed"),
    "signed by another key": (_signed_by_another(), SIGNATURE_NAME, f"by the key {signing_key(2).public.key_id}, not by {OURS}"),
    "signed by another key in our name": (_signed_by_another(key_id=OURS), MANIFEST_NAME, "altered, or not signed"),
}  # fmt: skip
"""Name -> alteration, the file that the message begins with, and what is in it: all of this, or one of at most three words."""


@pytest.mark.parametrize("form", FORMS)
def test_the_bundle_as_it_was_signed_is_accepted(good: list[Member], key: SigningKey, tmp_path: Path, form: str) -> None:
    bundle = write_form(form, good, tmp_path)
    with watched(bundle) as deeds:
        found = verify(bundle, key.public, today=TODAY)
    assert (deeds.ran, deeds.wrote) == ([], [])
    assert found.form == form
    assert {file.path: (file.size, file.executable) for file in found.manifest.files} == {
        m.path: (len(m.content), m.executable) for m in good[2:]
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_bundle_is_refused_and_the_file_named(
    good: list[Member], refused: Callable[[Path], str], tmp_path: Path, form: str, name: str
) -> None:
    alter, file, why = ALTERATIONS[name]
    message = refused(write_form(form, alter(good), tmp_path))
    assert message.startswith(file), message
    assert why in message or any(f" {word}" in message for word in why.split() if len(why.split()) < 4), message
