"""The shell installer of bundles without Python runs their program only once OpenSSL and sha256sum vouch for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from bundles import CREATED, Member, place, signing_key, write_key

from edge_latup.bundle.build import role_of
from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.manifest import BundleManifest
from edge_latup.bundle.sign import files_in, sign_bundle
from edge_latup.bundle.standalone import INSTALL_SH, check_standalone
from edge_latup.errors import InputError

MARK = "ran"
PROGRAM = '#!/bin/sh\ntouch "$HOME/ran"\nprintf "%s\\n" "$0" "$@"\nexit "${CODE:-0}"\n'
LIBRARY = "app/_internal/lib.so"
TOOLS = ("openssl", "sha256sum", "awk", "sed", "find", "sort", "cmp", "head", "mktemp")


def write(folder: Path, key: SigningKey, program: str = PROGRAM) -> Path:
    place(
        [
            Member("README.md", b"read me\n"), Member("app/edge-latup", program.encode(), True), Member(LIBRARY, bytes(range(256))),
            Member("app/_internal/a b.txt", b"spaces\n"), Member("install.sh", INSTALL_SH.encode(), True),
        ],
        folder,
    )  # fmt: skip
    manifest = BundleManifest(
        name="latup", version="1", created=CREATED, key_id=key.public.key_id, target="x86-64", files=files_in(folder, role_of)
    )
    sign_bundle(folder, manifest, key)
    return folder


@pytest.fixture
def bundle(tmp_path: Path, key: SigningKey) -> Path:
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"{missing[0]} is not on PATH")
    return write(tmp_path / "the bundle", key)


def run(bundle: Path, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    home = bundle.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **more}
    return subprocess.run([bundle / "install.sh", *map(str, words)], env=environment, capture_output=True, text=True, check=False)


def ran(bundle: Path) -> bool:
    return (bundle.parent / "home" / MARK).exists()


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_the_program_is_run_from_the_copy_that_was_hashed(bundle: Path, key: SigningKey, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    public, root = write_key(tmp_path, key.public), tmp_path / "clinic"
    script = SimpleNamespace(path=tmp_path / "install.sh")
    script.path.write_text(INSTALL_SH.replace("/bin/sh", shutil.which(shell) or ""), encoding="ascii")
    script.path.chmod(0o755)
    (tmp_path / "home").mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
    command = [script.path, bundle, "--key", public, "--root", root, "--allow-older"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    program, *words = done.stdout.splitlines()
    assert words == ["install", str(bundle), "--key", str(public), "--root", str(root), "--allow-older"]
    assert program.startswith(f"{root}/state/verify.")
    assert list((root / "state").iterdir()) == [], "the copy is gone"


def test_its_exit_code_is_the_programs(bundle: Path, key: SigningKey, tmp_path: Path) -> None:
    assert run(bundle, "--key", write_key(tmp_path, key.public), CODE="5").returncode == 5
    assert ran(bundle)


def linked(path: Path) -> None:
    content = path.with_name(f"{path.name}.elsewhere")
    path.rename(bundle_parent := path.parents[2] / content.name)
    path.symlink_to(bundle_parent)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def listed_for(path: Path, program: bytes) -> None:
    """A manifest that fits another program, without a new signature."""
    import hashlib

    (path / "app/edge-latup").write_bytes(program)
    manifest = json.loads((path / "manifest.json").read_bytes())
    entry = next(file for file in manifest["files"] if file["path"] == "app/edge-latup")
    entry |= {"sha256": hashlib.sha256(program).hexdigest(), "size": len(program)}
    (path / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="ascii")


ALTERATIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "program altered": (lambda path: flip(path / "app/edge-latup"), "app/edge-latup was altered"),
    "library altered": (lambda path: flip(path / LIBRARY), f"{LIBRARY} was altered"),
    "library cut": (lambda path: (path / LIBRARY).write_bytes(b""), f"{LIBRARY} was altered"),
    "library removed": (lambda path: (path / LIBRARY).unlink(), f"{LIBRARY} is missing, or was added"),
    "library renamed": (lambda path: (path / LIBRARY).rename(path / "app/_internal/x.so"), "is missing, or was added"),
    "file added": (lambda path: (path / "app/_internal/evil.so").write_bytes(b"x"), "app/_internal/evil.so is missing, or was added"),
    "file with a newline added": (lambda path: (path / "app/_internal/e\nvil.so").write_bytes(b"x"), "is missing, or was added"),
    "file linked": (lambda path: linked(path / LIBRARY), f"{LIBRARY} is a link"),
    "folder linked": (lambda path: linked(path / "app/_internal"), "is a link"),
    "manifest altered": (lambda path: flip(path / "manifest.json"), "manifest.json does not carry a valid signature"),
    "manifest of another program": (lambda path: listed_for(path, b"#!/bin/sh\n"), "manifest.json does not carry a valid signature"),
    "manifest removed": (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
    "signature removed": (lambda path: (path / "manifest.sig").unlink(), "manifest.sig is missing"),
    "signature empty": (lambda path: (path / "manifest.sig").write_bytes(b"{}"), "manifest.sig holds no signature"),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_what_was_altered_is_refused_before_it_runs(bundle: Path, key: SigningKey, tmp_path: Path, name: str) -> None:
    alter, words = ALTERATIONS[name]
    alter(bundle)
    done = run(bundle, "--key", write_key(tmp_path, key.public))
    assert done.returncode == 5, done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert words in error
    assert hint.startswith("hint: ")
    assert not ran(bundle)


def test_another_makers_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    done = run(bundle, "--key", write_key(tmp_path, signing_key(2).public))
    assert (done.returncode, ran(bundle)) == (5, False)


def test_without_openssl_it_refuses_and_says_so(bundle: Path, key: SigningKey, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in (*TOOLS, "dirname", "cat", "uniq", "cp", "chmod", "mkdir", "rm", "grep"):
        if tool != "openssl":
            (tools / tool).symlink_to(shutil.which(tool) or "")
    done = run(bundle, "--key", write_key(tmp_path, key.public), PATH=str(tools))
    assert (done.returncode, ran(bundle)) == (2, False)
    assert "openssl is missing" in done.stderr
    old = tools / "openssl"
    old.write_text('#!/bin/sh\necho "pkeyutl: usage without that option"\n', encoding="ascii")
    old.chmod(0o755)
    done = run(bundle, "--key", write_key(tmp_path, key.public), PATH=str(tools))
    assert (done.returncode, ran(bundle)) == (2, False)
    assert "install OpenSSL 3" in done.stderr


@pytest.mark.parametrize("words", [(), ("--key", "nowhere.json"), ("--key",), ("--what",)])
def test_without_a_key_nothing_is_run(bundle: Path, words: tuple[str, ...]) -> None:
    assert run(bundle, *words).returncode == 2
    assert not ran(bundle)


def test_it_is_made_on_the_platform_that_it_is_for() -> None:
    with pytest.raises(InputError, match="for windows-x86-64 cannot be made on"):
        check_standalone("windows-x86-64")
