"""The installer trusts the same bundles as `edge-latup verify`, with nothing but the standard library; and it switches in one step."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bundles import CREATED, TODAY, signing_key, write_bundle, write_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.bundle import attempts, install
from edge_latup.bundle.keys import SigningKey

RFC_8032 = [  # section 7.1, tests 1 to 3: public key, message, signature
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]  # fmt: skip


def test_a_self_test_that_dies_in_tensorrt_is_begun_again_until_it_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (install.ATTEMPTS, install.TRIES) == (attempts.NAME, attempts.MOST + 1)
    version, codes = tmp_path / "versions" / "v1", [-11, 3221225477, 0]
    counted = tmp_path / "state" / "cache" / "v1" / install.ATTEMPTS
    counted.parent.mkdir(parents=True)
    counted.touch()
    monkeypatch.setattr(install.subprocess, "run", lambda *given, **named: SimpleNamespace(returncode=codes.pop(0)))
    install.self_test(version, tmp_path)
    assert codes == []


@pytest.mark.parametrize(("code", "counted"), [(4, True), (-11, False)], ids=["a failed test", "a crash elsewhere"])
def test_anything_else_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, counted: bool) -> None:
    version, codes = tmp_path / "versions" / "v1", [code]
    (tmp_path / "state" / "cache" / "v1").mkdir(parents=True)
    if counted:
        (tmp_path / "state" / "cache" / "v1" / install.ATTEMPTS).touch()
    monkeypatch.setattr(install.subprocess, "run", lambda *given, **named: SimpleNamespace(returncode=codes.pop(0)))
    with pytest.raises(install.InstallError, match="did not pass its self-test"):
        install.self_test(version, tmp_path)


BUNDLE_FILE = "artifact/model.onnx"


@pytest.mark.parametrize(("public", "message", "signature"), RFC_8032)
def test_signatures_of_the_standard_are_accepted(public: str, message: str, signature: str) -> None:
    assert install.is_signed(bytes.fromhex(public), bytes.fromhex(signature), bytes.fromhex(message))
    assert not install.is_signed(bytes.fromhex(public), bytes.fromhex(signature), bytes.fromhex(message) + b"x")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.integers(0, 511), st.integers(0, 255))
def test_signatures_of_cryptography_are_accepted_and_flipped_bits_are_not(seed: bytes, message: bytes, bit: int, key_bit: int) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), private.sign(message)
    assert install.is_signed(public, signature, message)
    assert not install.is_signed(public, flipped(signature, bit), message)
    assert not install.is_signed(flipped(public, key_bit), signature, message)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_no_garbage_is_a_signature(signature: bytes, public: bytes) -> None:
    assert not install.is_signed(public, signature, b"message")


def test_it_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(str(install.__file__)).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"__future__"}


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    write_bundle(tmp_path / "bundle", key)
    return tmp_path / "bundle"


def checked(bundle: Path, public: Path, out: Path, today: str = TODAY.isoformat()) -> dict[str, Any]:
    verified = install.verified_manifest(bundle, install.read_key(public), today)
    install.copy_verified(bundle, verified, out)
    return verified.manifest


def test_what_was_signed_is_copied_byte_for_byte(bundle: Path, key: SigningKey, tmp_path: Path) -> None:
    checked(bundle, write_key(tmp_path, key.public), tmp_path / "copy")
    files = {path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*") if path.is_file()} == files
    for path in files:
        assert (tmp_path / "copy" / path).read_bytes() == (bundle / path).read_bytes()
    assert (tmp_path / "copy" / "install.sh").stat().st_mode & 0o111
    assert not (tmp_path / "copy" / BUNDLE_FILE).stat().st_mode & 0o111


def flip(path: Path) -> None:
    path.write_bytes(flipped(path.read_bytes(), 100))


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


ALTERATIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "altered": (lambda bundle: flip(bundle / BUNDLE_FILE), BUNDLE_FILE),
    "cut": (lambda bundle: (bundle / BUNDLE_FILE).write_bytes(b"short"), BUNDLE_FILE),
    "longer": (lambda bundle: (bundle / BUNDLE_FILE).write_bytes((bundle / BUNDLE_FILE).read_bytes() + b"x"), BUNDLE_FILE),
    "removed": (lambda bundle: (bundle / BUNDLE_FILE).unlink(), BUNDLE_FILE),
    "renamed": (lambda bundle: (bundle / BUNDLE_FILE).rename(bundle / "artifact/model2.onnx"), BUNDLE_FILE),
    "added": (lambda bundle: (bundle / "wheels/evil.whl").write_bytes(b"x"), "wheels/evil.whl"),
    "linked": (lambda bundle: link(bundle / BUNDLE_FILE), BUNDLE_FILE),
    "manifest altered": (lambda bundle: flip(bundle / "manifest.json"), "manifest.json"),
    "manifest gone": (lambda bundle: (bundle / "manifest.json").unlink(), "manifest.json"),
    "manifest too large": (lambda bundle: (bundle / "manifest.json").write_bytes(b" " * (5 << 20)), "manifest.json"),
    "signature gone": (lambda bundle: (bundle / "manifest.sig").unlink(), "manifest.sig"),
    "signature garbled": (lambda bundle: (bundle / "manifest.sig").write_bytes(b"{}"), "the bundle is signed with the key None"),
    "signature no JSON": (lambda bundle: (bundle / "manifest.sig").write_bytes(b"[[[["), "manifest.sig"),
}


@pytest.mark.parametrize("what", ALTERATIONS)
def test_what_was_altered_is_refused_by_name(what: str, bundle: Path, key: SigningKey, tmp_path: Path) -> None:
    alter, named = ALTERATIONS[what]
    alter(bundle)
    with pytest.raises(install.InstallError) as caught:
        checked(bundle, write_key(tmp_path, key.public), tmp_path / "copy")
    assert caught.value.code == 5
    assert caught.value.message.startswith(named), caught.value.message


def test_another_key_and_an_expired_one_are_refused(bundle: Path, key: SigningKey, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(install.InstallError, match="is signed with the key"):
        checked(bundle, write_key(other, signing_key(2).public), tmp_path / "copy")
    old = signing_key(3, expires=CREATED)
    write_bundle(tmp_path / "old", old)
    with pytest.raises(install.InstallError, match="the key expired on '2026-11-01'"):
        checked(tmp_path / "old", write_key(tmp_path, old.public), tmp_path / "copy")


def test_a_key_that_was_edited_is_refused(bundle: Path, key: SigningKey, tmp_path: Path) -> None:
    public = write_key(tmp_path, key.public)
    public.write_text(public.read_text(encoding="utf-8").replace("Imaging group", "Imaging grope"), encoding="utf-8")
    assert install.main([str(bundle), "--key", str(public), "--root", str(tmp_path / "root")]) == 2
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../b", "a\\b", "C:evil", "a/./b", "", "name.", "name ", "tab\there"])
def test_names_that_leave_the_folder_are_unsafe(path: str, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    file = {"path": path, "size": 0, "sha256": "", "executable": False}
    with pytest.raises(install.InstallError) as caught:
        install.copy_verified(tmp_path / "bundle", install.Verified({"files": [file]}, {}), tmp_path / "copy")
    assert caught.value.code == 5


def test_what_is_installed_is_the_manifest_that_was_verified(bundle: Path, key: SigningKey, tmp_path: Path) -> None:
    """On a share, somebody may replace it while the rest is copied."""
    verified = install.verified_manifest(bundle, install.read_key(write_key(tmp_path, key.public)), TODAY.isoformat())
    before = (bundle / "manifest.json").read_bytes()
    (bundle / "manifest.json").write_bytes(before.replace(b'"created": "2', b'"created": "9'))
    (bundle / "manifest.sig").write_bytes(b"{}")
    install.copy_verified(bundle, verified, tmp_path / "copy")
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == before
    assert (tmp_path / "copy" / "manifest.sig").read_bytes() != b"{}"


def test_another_python_gets_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wheels are those of one Python: after an upgrade of the system they would not load, however often the installer is run."""
    place = install._place(tmp_path, "b-1-abc")
    assert place == tmp_path / "b-1-abc"
    place.mkdir()
    (place / "installed.json").write_text(json.dumps({"manifest_sha256": "0", "python": [sys.executable, install.MINOR]}))
    assert install._place(tmp_path, "b-1-abc") == place
    monkeypatch.setattr(install, "MINOR", "3.99")
    other = install._place(tmp_path, "b-1-abc")
    assert other != place
    assert other.name.startswith("b-1-abc-")
    other.mkdir()
    (other / "installed.json").write_text("{}")
    assert install._place(tmp_path, "b-1-abc") == other
    (place / "installed.json").write_text("{}")
    monkeypatch.undo()
    assert install._place(tmp_path, "b-1-abc") not in (place, other), "one that an older installer made says no Python"
    (place / "bundle" / "app").mkdir(parents=True)
    (place / "bundle" / "app" / "edge-latup").touch()
    assert install._place(tmp_path, "b-1-abc") == place, "a program brings its own Python"


def test_what_old_versions_kept_goes_with_them(tmp_path: Path) -> None:
    for name in ("a-1-x", "a-2-x", "a-3-x"):
        make_version(tmp_path, name)
        (tmp_path / "state" / "cache" / name).mkdir(parents=True)
        (tmp_path / "state" / f"self-test-{name}.json").write_text("{}")
    (tmp_path / "current").write_text("a-2-x")
    install.switch(tmp_path, "a-3-x")
    for folder in ("versions", "state/cache"):
        assert {path.name for path in (tmp_path / folder).iterdir()} == {"a-2-x", "a-3-x"}
    assert {path.name for path in (tmp_path / "state").glob("*.json")} == {"self-test-a-2-x.json", "self-test-a-3-x.json"}


def test_nothing_is_rolled_back_during_an_installation(tmp_path: Path) -> None:
    for name in ("a-1-x", "a-2-x"):
        make_version(tmp_path, name)
    (tmp_path / "current").write_text("a-2-x")
    (tmp_path / "previous").write_text("a-1-x")
    with install.only_one(tmp_path), pytest.raises(install.InstallError, match="another installation"):
        install.rollback(tmp_path)
    (tmp_path / "current").unlink()
    with pytest.raises(install.InstallError, match="there is no earlier version"):
        install.rollback(tmp_path)
    assert (tmp_path / "previous").read_text() == "a-1-x"


def make_version(root: Path, name: str) -> None:
    (root / "versions" / name).mkdir(parents=True)
    (root / "versions" / name / "installed.json").write_text("{}", encoding="ascii")


def test_the_version_before_is_kept_and_can_be_gone_back_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two", "three"):
        make_version(tmp_path, name)
        install.switch(tmp_path, name)
    assert {path.name for path in (tmp_path / "versions").iterdir()} == {"two", "three"}
    assert install.main(["--rollback", "--root", str(tmp_path)]) == 0
    assert (tmp_path / "current").read_text(encoding="utf-8") == "two\n"
    assert install.main(["--rollback", "--root", str(tmp_path)]) == 0
    assert (tmp_path / "current").read_text(encoding="utf-8") == "three\n"
    assert capsys.readouterr().err == ""


def test_without_an_earlier_version_there_is_nothing_to_go_back_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install.main(["--rollback", "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: there is no earlier version in {tmp_path}\nhint: ")


def test_without_a_key_nothing_is_trusted(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install.main([str(bundle), "--root", str(tmp_path / "root")]) == 2
    assert "no public key is given, so nothing can be trusted" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_two_installations_at_once_are_one_too_many(
    bundle: Path, key: SigningKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = write_key(tmp_path, key.public)
    with install.only_one(tmp_path / "root"):
        assert install.main([str(bundle), "--key", str(public), "--root", str(tmp_path / "root")]) == 2
    assert "is running" in capsys.readouterr().err


def test_a_python_that_the_bundle_does_not_serve_is_told(
    bundle: Path, key: SigningKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    public = write_key(tmp_path, key.public)
    assert install.main([str(bundle), "--key", str(public), "--root", str(tmp_path / "root")]) == 2
    python = ".".join(map(str, sys.version_info[:2]))
    assert f"this is Python {python}, and the bundle serves" in capsys.readouterr().err
    assert list((tmp_path / "root" / "versions").iterdir()) == [], "nothing half-installed is left"


def in_use(root: Path, bundle: Path) -> None:
    """Make a bundle the current version, as far as the installer looks."""
    make_version(root, "now")
    (root / "versions" / "now" / "bundle").mkdir()
    (root / "versions" / "now" / "bundle" / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes())
    install.switch(root, "now")


@pytest.mark.parametrize(("days", "refused"), [(-1, True), (0, False), (1, False)])
def test_an_older_bundle_is_refused_however_well_signed(
    days: int, refused: bool, key: SigningKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, public = tmp_path / "root", write_key(tmp_path, key.public)
    write_bundle(tmp_path / "installed", key, version="2", created=CREATED + timedelta(days=5))
    in_use(root, tmp_path / "installed")
    write_bundle(tmp_path / "bundle", key, created=CREATED + timedelta(days=5 + days))
    command = [str(tmp_path / "bundle"), "--key", str(public), "--root", str(root)]
    assert install.main(command) == (5 if refused else 2), "2: this Python is not served, which is asked later"
    said = capsys.readouterr().err
    assert ("--allow-older" in said) == refused
    assert (root / "current").read_text(encoding="utf-8") == "now\n"
    assert install.main([*command, "--allow-older"]) == 2
    assert "this is Python" in capsys.readouterr().err


@pytest.mark.parametrize("current", [b"", b"not JSON", b"[]"])
def test_a_version_that_cannot_be_read_stands_in_nobodys_way(current: bytes, tmp_path: Path) -> None:
    make_version(tmp_path, "now")
    (tmp_path / "versions" / "now" / "bundle").mkdir()
    (tmp_path / "versions" / "now" / "bundle" / "manifest.json").write_bytes(current)
    install.switch(tmp_path, "now")
    install.refuse_older({"created": "2020-01-01"}, tmp_path)
