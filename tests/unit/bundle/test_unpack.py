"""Unpacking writes what was hashed, in one step, or nothing; signing and writing archives is reproducible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import CREATED, FORMS, MARK, TODAY, Member, changed, members_of, signing_key, watched, write_bundle, write_form, write_key
from support import tree

from edge_latup.bundle import unpack as module
from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.manifest import BundleManifest
from edge_latup.bundle.sign import files_in, sign_bundle, write_archive
from edge_latup.bundle.unpack import unpack_verified
from edge_latup.bundle.verify import verify
from edge_latup.errors import InputError, VerificationError


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("form", FORMS)
def test_what_is_unpacked_is_what_was_signed(good: list[Member], key: SigningKey, tmp_path: Path, form: str) -> None:
    bundle = write_form(form, good, tmp_path)
    out = tmp_path / "deep" / "installed"
    old = os.umask(0o077)
    try:
        with watched(bundle) as deeds:
            found = unpack_verified(bundle, key.public, out, today=TODAY)
    finally:
        os.umask(old)
    assert found.manifest.label == "latup-demo-1.2.0"
    assert {m.path: (m.content, m.executable) for m in members_of(out)} == {m.path: (m.content, m.executable) for m in good}
    assert files_below(out) == sorted(m.path for m in good)
    assert verify(out, key.public, today=TODAY).digest == found.digest
    assert deeds.ran == []
    assert all(path.resolve().is_relative_to(tmp_path / "deep") for path in deeds.wrote), deeds.wrote
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["installed"]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_left_of_a_bundle_that_is_swapped_between_the_two_readings(
    good: list[Member], key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The race of every "verify, then use": the bundle verifies, and is another one when it is opened again."""
    bundle = write_form(form, good, tmp_path)
    other = write_form(form, changed("segment", lambda c: c + b"evil")(good), tmp_path / "other" if form == "folder" else _made(tmp_path))

    def swap(*arguments: object, **options: object) -> object:
        found = verify(*arguments, **options)  # type: ignore[arg-type]
        shutil.rmtree(bundle) if form == "folder" else bundle.unlink()
        other.rename(bundle)
        return found

    monkeypatch.setattr(module, "verify", swap)
    with pytest.raises(VerificationError, match="^segment "):
        unpack_verified(bundle, key.public, tmp_path / "out" / "x", today=TODAY)
    assert list((tmp_path / "out").iterdir()) == []


def _made(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    return tmp_path / "other"


def test_another_good_bundle_in_between_is_refused_too(
    good: list[Member], key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "older", key, version="1.1.0")
    bundle = write_form("zip", good, tmp_path)

    def swap(*arguments: object, **options: object) -> object:
        found = verify(*arguments, **options)  # type: ignore[arg-type]
        bundle.unlink()
        write_archive(tmp_path / "older", bundle)
        return found

    monkeypatch.setattr(module, "verify", swap)
    with pytest.raises(VerificationError, match="manifest.json changed while the bundle was read"):
        unpack_verified(bundle, key.public, tmp_path / "out", today=TODAY)
    assert not (tmp_path / "out").exists()


def test_nothing_is_unpacked_over_something(good: list[Member], key: SigningKey, tmp_path: Path) -> None:
    bundle = write_form("zip", good, tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(InputError, match="exists"):
            unpack_verified(bundle, key.public, tmp_path / name, today=TODAY)


def test_a_full_disk_is_told_before_and_while_writing(
    good: list[Member], key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_form("tar.zst", good, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
        with pytest.raises(InputError, match="MiB free"):
            unpack_verified(bundle, key.public, tmp_path / "out" / "x", today=TODAY)

    def full(handle: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(InputError, match="cannot be written: No space left on device"):
            unpack_verified(bundle, key.public, tmp_path / "out" / "x", today=TODAY)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("ending", ["tar.zst", "zip"])
def test_the_same_folder_gives_the_same_archive(key: SigningKey, tmp_path: Path, ending: str) -> None:
    archives = []
    for name in ("one", "two"):
        write_bundle(tmp_path / name, key)
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (len(name), 10**9 + len(archives)))
        write_archive(tmp_path / name, tmp_path / f"{name}.{ending}")
        archives.append((tmp_path / f"{name}.{ending}").read_bytes())
    assert archives[0] == archives[1]
    with pytest.raises(InputError, match="exists"):
        write_archive(tmp_path / "one", tmp_path / f"one.{ending}")
    with pytest.raises(InputError, match="no archive that a bundle can be"):
        write_archive(tmp_path / "one", tmp_path / "one.tar.gz")
    (tmp_path / "one" / "segment").write_bytes(b"changed since")
    with pytest.raises(VerificationError, match="^segment "):
        write_archive(tmp_path / "one", tmp_path / f"three.{ending}")
    assert not (tmp_path / f"three.{ending}").exists()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "x").symlink_to("segment"), "x is a link"),
        (lambda folder: (folder / "x").symlink_to("artifact", target_is_directory=True), "x is a link"),
        (lambda folder: os.mkfifo(folder / "x"), "x is a link or a special file"),
        (lambda folder: (folder / "x").mkdir(), "x is empty"),
        (lambda folder: (folder / "r\u00e9sum\u00e9").touch(), "not printable ASCII"),
        (lambda folder: (folder / "aux.py").touch(), "device"),
    ],
)
def test_what_no_clinic_could_verify_is_not_signed(key: SigningKey, tmp_path: Path, spoil: Callable[[Path], object], told: str) -> None:
    write_bundle(tmp_path / "bundle", key)
    spoil(tmp_path / "bundle")
    with pytest.raises(InputError, match=told):
        files_in(tmp_path / "bundle", lambda _: "other")


def test_a_key_signs_only_what_asks_for_it_within_its_dates(key: SigningKey, tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "bundle", key)
    before = tree(tmp_path / "bundle")
    late = signing_key(created=TODAY)
    for signer, asks, told in ((signing_key(2), key, "asks for the key"), (late, late, "outside the key's dates, 2026-11-21")):
        other: BundleManifest = manifest.model_copy(update={"key_id": asks.public.key_id, "created": CREATED})
        with pytest.raises(InputError, match=told):
            sign_bundle(tmp_path / "bundle", other, signer)
    assert tree(tmp_path / "bundle") == before


@pytest.mark.parametrize("form", FORMS)
def test_from_inside_the_bundle_nothing_of_it_is_imported(good: list[Member], tmp_path: Path, form: str) -> None:
    """The bundle holds a pydantic.py, a sitecustomize.py and an edge_latup/: the command, started there, must not see them."""
    bundle = write_form(form, changed("segment", lambda c: c + b"!")(good), tmp_path)
    here = bundle if form == "folder" else tmp_path
    path = write_key(tmp_path / "key" if (tmp_path / "key").mkdir() is None else tmp_path, signing_key().public)
    mark = Path(tempfile.gettempdir(), MARK)
    mark.unlink(missing_ok=True)
    code = "import sys; from edge_latup.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-I", "-c", code, "verify", str(bundle), "--key", str(path)],
        cwd=here, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "segment " in done.stderr
    assert not mark.exists()
    if form == "folder":
        assert files_below(bundle) == sorted(member.path for member in good)  # no __pycache__ either


@pytest.mark.parametrize("form", FORMS)
def test_memory_is_bounded_whatever_the_size(key: SigningKey, tmp_path: Path, form: str) -> None:
    """32 MiB in one file; the traced peak stays at a few blocks of 1 MiB, in verifying and in unpacking."""
    import tracemalloc

    folder = tmp_path / "large"
    folder.mkdir()
    with (folder / "weights.bin").open("wb") as file:
        for index in range(32):
            file.write(bytes([index]) * (1 << 20))
    manifest = BundleManifest(
        name="n", version="1", created=CREATED, key_id=key.public.key_id, target="t", files=files_in(folder, lambda _: "other")
    )
    sign_bundle(folder, manifest, key)
    bundle = folder if form == "folder" else tmp_path / f"large.{form}"
    if form != "folder":
        write_archive(folder, bundle)
    verify(bundle, key.public, today=TODAY)  # imports happen here
    tracemalloc.start()
    try:
        unpack_verified(bundle, key.public, tmp_path / "out", today=TODAY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
