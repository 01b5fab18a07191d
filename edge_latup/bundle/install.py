"""Installs a bundle with nothing but Python's standard library: verify, copy, install the wheels, self-test, then switch.

This file is in every bundle; `edge-latup package installer` prints it too, so that an IT department can bring a copy of its own beside
the public key. It touches nothing outside the folder it installs into (--root) and needs no administrator.

    python3 install.py BUNDLE --key public-key.json [--root FOLDER]     install, or continue an installation that was cut
    python3 install.py --rollback [--root FOLDER]                       go back to the version before

A bundle that was made on an earlier day than the one in use is refused, however well it is signed, unless --allow-older is given.

Layout of --root: versions/ID/ (bundle/, site/, installed.json), current and previous (files that hold an ID), state/, segment, edge-latup.
The switch is one rename of `current`, made only after the new version passed its self-test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

BLOCK: Final = 1 << 20
OK, FAILED, USAGE, REFUSED = 0, 1, 2, 5
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
LARGEST: Final = {MANIFEST: 4 << 20, SIGNATURE: 1 << 10}
VERIFY_FIRST: Final = "do not install it; copy the bundle again, and report it if that does not help"
KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "QEMU_CPU")
"""The last names the processor that qemu emulates; its own choice has SVE, which makes emulated floating point several times slower
(docs/aarch64.md)."""
START: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from edge_latup.cli.installed import main; sys.exit(main(sys.argv[1:]))"
"""Run with -I -S: nothing of the system's or the user's packages, and no variable of the environment, is seen."""
MINOR: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
INSTALLED: Final = "installed.json"
"""In the folder of a version that is whole: the bundle's hash, and path and version of the Python that its wheels are for."""
OLD: Final = 24 * 3600
"""Seconds after which a folder that an installation verified in is a killed one's."""
APP, PROGRAM = "app", "edge-latup"
"""Folder of a bundle that brings its own Python, and the program in it, which takes the same words."""

Point = tuple[int, int, int, int]


class InstallError(Exception):
    """What ends the installation: a sentence, what to do next, and the exit code."""

    def __init__(self, message: str, hint: str = "", code: int = USAGE) -> None:
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


# Ed25519 (RFC 8032, section 5.1), verification only: Python's library has no signatures, and nothing of a bundle may run before its own
# is checked. One signature takes milliseconds. No secret is handled, so timing does not matter.

P: Final = 2**255 - 19
L: Final = 2**252 + 27742317777372353535851937790883648493
D: Final = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE: Final = pow(2, (P - 1) // 4, P)


def _x_of(y: int, sign: int) -> int | None:
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def _add(a: Point, b: Point) -> Point:
    """Sum of two points in extended coordinates (X, Y, Z, T)."""
    s, t = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    u, v = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = t - s, v - u, v + u, t + s
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point, scalar = _add(point, point), scalar >> 1
    return total


def _same(a: Point, b: Point) -> bool:
    return not ((a[0] * b[2] - b[0] * a[2]) % P or (a[1] * b[2] - b[1] * a[2]) % P)


def _point(encoded: bytes) -> Point | None:
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    x = _x_of(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def is_signed(public: bytes, signature: bytes, content: bytes) -> bool:
    """Whether a 64-byte signature over `content` is of the 32-byte public key."""
    if len(public) != 32 or len(signature) != 64:
        return False
    base = _point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    key, point, scalar = _point(public), _point(signature[:32]), int.from_bytes(signature[32:], "little")
    if base is None or key is None or point is None or scalar >= L:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + content).digest(), "little") % L
    return _same(_times(scalar, base), _add(point, _times(challenge, key)))


# Verification of the folder.


def refused(name: str, what: str) -> InstallError:
    """The end for a file that is not what was signed."""
    return InstallError(f"{ascii(name)[1:-1]} {what}", VERIFY_FIRST, REFUSED)


def _object(name: str, content: bytes) -> dict[str, Any]:
    """A JSON object in which no key stands twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    try:
        data = json.loads(content.decode("ascii"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise refused(name, "is not valid JSON") from None
    if not isinstance(data, dict):
        raise refused(name, "is not a JSON object")
    return data


def read_key(path: Path) -> dict[str, Any]:
    """public-key.json, whose key_id must be that of its other fields.

    Raises:
        InstallError: it is no public key, or was changed.
    """
    try:
        with path.open("rb") as file:
            key = _object(path.name, file.read(16 << 10))
        facts = {name: value for name, value in key.items() if name != "key_id"}
        written = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"
        bytes.fromhex(key["public_key"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InstallError(f"{path} is not a public key: {error}", "give the maker's public-key.json") from None
    if hashlib.sha256(written.encode("ascii")).hexdigest()[:32] != key.get("key_id"):
        raise InstallError(f"{path} was changed since it was made", "ask the maker for public-key.json again")
    return key


class Verified(NamedTuple):
    """A manifest whose signature holds, and the bytes of it and its signature that were verified: the files may change meanwhile."""

    manifest: dict[str, Any]
    head: dict[str, bytes]

    @property
    def digest(self) -> str:
        """SHA-256 of manifest.json."""
        return hashlib.sha256(self.head[MANIFEST]).hexdigest()


def verified_manifest(bundle: Path, key: dict[str, Any], today: str) -> Verified:
    """manifest.json of a folder, once its signature by the key holds.

    Raises:
        InstallError: it does not, or something is past its date.
    """
    content, signed_by = _head(bundle, MANIFEST), _head(bundle, SIGNATURE)
    signature = _object(SIGNATURE, signed_by)
    if signature.get("key_id") != key["key_id"]:
        raise InstallError(f"the bundle is signed with the key {signature.get('key_id')!a}, not {key['key_id']}", VERIFY_FIRST, REFUSED)
    try:
        signed = is_signed(bytes.fromhex(key["public_key"]), bytes.fromhex(signature["signature"]), content)
    except (KeyError, TypeError, ValueError):
        signed = False
    if not signed:
        raise refused(MANIFEST, f"does not carry a valid signature of {key.get('owner')!a}")
    manifest = _object(MANIFEST, content)
    if manifest.get("key_id") != key["key_id"]:
        raise refused(MANIFEST, "asks for another key")
    if manifest.get("schema_version") != 1 or key.get("minimum_schema", 1) > 1:
        message = f"the bundle has schema {manifest.get('schema_version')!a}, which this installer or this key does not accept"
        raise InstallError(message, "use the installer that came with the bundle's version of edge-latup", REFUSED)
    for what, last in (("bundle", manifest.get("expires")), ("key", key.get("expires"))):
        if last is not None and today > last:
            raise InstallError(f"the {what} expired on {last!a}", "ask its maker for a new one", REFUSED)
    return Verified(manifest, {MANIFEST: content, SIGNATURE: signed_by})


def _head(bundle: Path, name: str) -> bytes:
    path = bundle / name
    if path.is_symlink() or not path.is_file():
        raise refused(name, "is missing, or a link")
    with path.open("rb") as file:
        content = file.read(LARGEST[name] + 1)
    if len(content) > LARGEST[name]:
        raise refused(name, "is larger than it may be")
    return content


def _names_in(folder: Path) -> Iterator[str]:
    """Every file of a folder, POSIX and relative."""
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(above, name)
            short = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise refused(short, "is a link or a special file")
            if name in files:
                yield short


def _unsafe(path: str) -> bool:
    """Whether a path of the manifest could leave the folder, or be another file on some system."""
    plain = all(" " <= letter <= "~" and letter not in '<>:"\\|?*' for letter in path)
    return not plain or any(part in ("", ".", "..") or part[-1] in " ." for part in path.split("/"))


def copy_verified(bundle: Path, verified: Verified, destination: Path) -> None:
    """Copy what the manifest lists, and only that, hashing what is written; the manifest itself as it was verified.

    Raises:
        InstallError: a file is missing, was added or altered, or its name is not allowed.
    """
    listed = {file["path"]: file for file in verified.manifest["files"]}
    present = set(_names_in(bundle)) - {MANIFEST, SIGNATURE}
    for path in sorted(set(listed) - present):
        raise refused(path, "is missing")
    for path in sorted(present - set(listed)):
        raise refused(path, "was added: it is not in the manifest")
    for path, file in sorted(listed.items()):
        if _unsafe(path):
            raise refused(path, "has a name that is not allowed")
        _copy(bundle / path, destination / path, file)
    for name, content in verified.head.items():
        (destination / name).write_bytes(content)


def _copy(source: Path, target: Path, file: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as original, target.open("xb") as copy:
        while block := original.read(BLOCK):
            digest.update(block)
            size += len(block)
            copy.write(block)
    if size != file["size"] or digest.hexdigest() != file["sha256"]:
        raise refused(file["path"], "was altered: it is not what was signed")
    target.chmod(0o755 if file["executable"] else 0o644)


# Installation.


def say(text: str) -> None:
    """Progress, for people."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a small file in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_small(path: Path) -> str | None:
    """Content of a small file without the white space around it; None where there is none."""
    try:
        return path.read_text(encoding="utf-8")[:200].strip() or None
    except OSError:
        return None


def clean_environment(root: Path) -> dict[str, str]:
    """An environment in which pip and the self-test read no user's settings and write nowhere else."""
    temporary = root / "state" / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)) | dict.fromkeys(("HOME", "USERPROFILE"), str(root))
    return {**kept, **places, "PIP_CONFIG_FILE": os.devnull}


def install_wheels(version: Path, root: Path) -> None:
    """Pip, out of the bundle, installs the locked wheels into version/site; then they are let go.

    Raises:
        InstallError: the bundle does not serve this Python, or pip failed.
    """
    wheels, python = version / "bundle" / "wheels", ".".join(map(str, sys.version_info[:2]))
    lock = wheels / f"lock-{python}.txt"
    if not lock.is_file():
        served = ", ".join(sorted(path.stem.removeprefix("lock-") for path in wheels.glob("lock-*.txt")))
        raise InstallError(f"this is Python {python}, and the bundle serves {served}", "run install.py with one of them")
    pip = next(wheels.glob("pip-*.whl")) / "pip"
    command = [sys.executable, "-I", str(pip), "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-compile", "--no-cache-dir", "--no-warn-script-location", "--require-hashes", "--find-links", str(wheels)]
    command += ["-r", str(lock), "--target", str(version / "site")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment(root), check=False)
    said = done.stdout.decode("utf-8", errors="replace")
    if done.returncode:
        words = said.strip().splitlines()
        raise InstallError(f"the wheels could not be installed: {words[-1] if words else done.returncode}", "\n".join(words[-6:]), FAILED)
    shutil.rmtree(wheels)


ATTEMPTS: Final = "tensorrt-attempts.json"
"""What the self-test counts in; `edge_latup.bundle.attempts` has the same name."""
TRIES: Final = 3
"""Two that TensorRT may end, and one without it."""


def self_test(version: Path, root: Path) -> None:
    """Run the golden case through a version.

    Raises:
        InstallError: it did not pass.
    """
    app = version / "bundle" / APP / PROGRAM
    start = [str(app)] if app.is_file() else [sys.executable, "-I", "-S", "-c", START, str(version / "site")]
    command = [*start, "--root", str(root), "--version", version.name, "self-test"]
    attempts = root / "state" / "cache" / version.name / ATTEMPTS
    for left in reversed(range(TRIES)):
        code = subprocess.run(command, env=clean_environment(root), check=False).returncode
        # Ended by a signal, or on Windows by an exception. The self-test counts such ends and then does without TensorRT.
        if 0 <= code <= 255 or not attempts.is_file() or not left:
            break
        say("TensorRT ended the self-test; it is begun again")
    if code:
        message = "the new version did not pass its self-test, so it was not switched to"
        raise InstallError(message, "the version before, if any, stays in use; tell whoever made the bundle what is written above", FAILED)


LAUNCHER: Final = """#!/bin/sh
# Made by install.py. Starts the installed version with its own Python, or the one it was installed with.
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
version=$(cat "$root/current") || {{ echo "error: no version is installed in $root" >&2; exit 2; }}
app=$root/versions/$version/bundle/app/edge-latup
if [ -f "$app" ]; then exec "$app" --root "$root" --version "$version" {verb} "$@"; fi
python=$(cat "$root/versions/$version/python") || exit 1
exec "$python" -I -S -c '{start}' "$root/versions/$version/site" --root "$root" --version "$version" {verb} "$@"
"""
WINDOWS_LAUNCHER: Final = """@echo off
rem Made by install.py. Starts the installed version with the Python it was installed with.
set /p version=<"%~dp0current"
set /p python=<"%~dp0versions\\%version%\\python"
"%python%" -I -S -c "{start}" "%~dp0versions\\%version%\\site" --root "%~dp0." --version "%version%" {verb} %*
"""


def write_launchers(root: Path) -> None:
    """Write segment and edge-latup: the same words for every version, so they are never in between two."""
    for name, verb in (("segment", "segment"), ("edge-latup", "run")):
        if os.name == "nt":
            write_atomically(root / f"{name}.cmd", WINDOWS_LAUNCHER.format(start=START, verb=verb).replace("\n", "\r\n"))
        else:
            write_atomically(root / name, LAUNCHER.format(start=START, verb=verb), 0o755)


def only_one(root: Path) -> IO[str]:
    """An open file that no other installation into `root` can lock; the system lets go of it when the process ends, however it ends.

    Raises:
        InstallError: another installation holds it.
    """
    (root / "state").mkdir(parents=True, exist_ok=True)
    file = (root / "state" / "install.lock").open("w")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InstallError(f"another installation into {root} is running", "wait until it ends, then run this again if needed") from None
    return file


def refuse_older(manifest: dict[str, Any], root: Path) -> None:
    """Keep anyone from bringing back a fault that was mended: a signature has no end by itself. Bundles of one day have no order.

    Raises:
        InstallError: the version in use was made on a later day.
    """
    current = read_small(root / "current")
    if current is None:
        return
    try:
        before = str(json.loads((root / "versions" / current / "bundle" / MANIFEST).read_bytes())["created"])
    except (OSError, ValueError, TypeError, KeyError):
        return  # nothing that works is in use
    if (now := str(manifest.get("created"))) < before:
        message = f"the bundle was made on {now!a}, and {current}, which is in use, on {before!a}"
        raise InstallError(message, "install the newer one, or add --allow-older if its maker told you to go back", REFUSED)


def install(bundle: Path, key_path: Path, root: Path, today: str, *, allow_older: bool = False) -> None:
    """The whole installation; what an earlier one left unfinished is removed first.

    Raises:
        InstallError: the bundle is not what was signed, or cannot be installed here. What was in use stays in use.
    """
    began = time.monotonic()
    verified = verified_manifest(bundle, read_key(key_path), today)
    manifest = verified.manifest
    with only_one(root):
        if not allow_older:
            refuse_older(manifest, root)
        versions = root / "versions"
        versions.mkdir(parents=True, exist_ok=True)
        for path in versions.glob(".part-*"):
            shutil.rmtree(path)
        for path in (root / "state").glob("verify.*"):
            if time.time() - path.stat().st_mtime > OLD and not bundle.is_relative_to(path):
                shutil.rmtree(path, ignore_errors=True)
        version = _place(versions, f"{manifest['name']}-{manifest['version']}-{verified.digest[:12]}")
        identity = version.name
        if (version / INSTALLED).is_file():
            say(f"{identity} is here already; testing it")
        else:
            _put(bundle, verified, version, root)
        say("self-test on this machine")
        self_test(version, root)
        switch(root, identity)
    megabytes = sum(path.lstat().st_size for path in version.rglob("*") if path.is_file()) / 1e6
    say(f"{identity} is installed in {root}: {megabytes:.0f} MB, {time.monotonic() - began:.0f} s")
    say(f"segment a case: {root / 'segment'} CASE --out LABELS.nii.gz")


def _place(versions: Path, identity: str) -> Path:
    """Where a bundle belongs.

    Its wheels are those of one Python: for another one, such as after an upgrade of the system, it gets a place of its own, and what is in
    use stays as it is.
    """
    version = versions / identity
    if not (version / INSTALLED).is_file() or (version / "bundle" / APP / PROGRAM).is_file():
        return version
    try:
        made_with = json.loads((version / INSTALLED).read_text(encoding="utf-8")).get("python")
    except (OSError, ValueError, AttributeError):
        made_with = None
    here = [sys.executable, MINOR]
    return version if made_with == here else versions / f"{identity}-{hashlib.sha256(json.dumps(here).encode()).hexdigest()[:8]}"


def _put(bundle: Path, verified: Verified, version: Path, root: Path) -> None:
    """Copy and install beside the final place; the folder gets its name when all is there."""
    shutil.rmtree(version, ignore_errors=True)
    part = version.with_name(f".part-{os.getpid()}")
    (part / "bundle").mkdir(parents=True)
    try:
        say(f"copying {sum(file['size'] for file in verified.manifest['files']) / 1e6:.0f} MB, checking every file")
        copy_verified(bundle, verified, part / "bundle")
        if not (part / "bundle" / APP / PROGRAM).is_file():
            say("installing the wheels")
            install_wheels(part, root)
            write_atomically(part / "python", f"{sys.executable}\n")
        facts = {"manifest_sha256": verified.digest, "python": [sys.executable, MINOR]}
        write_atomically(part / INSTALLED, json.dumps(facts) + "\n")
        if hasattr(os, "sync"):
            os.sync()
        part.rename(version)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def switch(root: Path, identity: str) -> None:
    """Make a version the one that the launchers start; the one before is kept for --rollback, older ones go."""
    before = read_small(root / "current")
    if before and before != identity:
        write_atomically(root / "previous", f"{before}\n")
    write_launchers(root)
    write_atomically(root / "current", f"{identity}\n")
    kept = {identity, read_small(root / "previous")}
    cache = root / "state" / "cache"
    for path in (*(root / "versions").iterdir(), *(cache.iterdir() if cache.is_dir() else ())):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    for path in (root / "state").glob("self-test-*.json"):
        if path.stem.removeprefix("self-test-") not in kept:
            path.unlink(missing_ok=True)


def rollback(root: Path) -> None:
    """Make the previous version current again.

    Raises:
        InstallError: there is none, or an installation is running.
    """
    missing = InstallError(f"there is no earlier version in {root}", "install the earlier bundle again")
    if not root.is_dir():
        raise missing
    with only_one(root):
        current, previous = read_small(root / "current"), read_small(root / "previous")
        if not current or not previous or not (root / "versions" / previous / INSTALLED).is_file():
            raise missing
        write_atomically(root / "current", f"{previous}\n")
        write_atomically(root / "previous", f"{current}\n")
    say(f"{previous} is in use again; {current} is kept")


def main(arguments: Sequence[str]) -> int:
    """Read the command line; every failure is one sentence and an exit code."""
    parser = argparse.ArgumentParser(description="Install an edge-latup bundle, offline, for this user.")
    parser.add_argument("bundle", nargs="?", type=Path, default=Path(__file__).parent, help="the unpacked bundle; this file's folder")
    parser.add_argument("--key", type=Path, help="the maker's public-key.json, got by another way than the bundle")
    parser.add_argument("--root", type=Path, default=Path.home() / "edge-latup", help="where to install; %(default)s unless given")
    parser.add_argument("--rollback", action="store_true", help="go back to the version before")
    parser.add_argument("--allow-older", action="store_true", help="install a bundle that was made before the one in use")
    asked = parser.parse_args(arguments)
    root = asked.root.absolute()
    try:
        if asked.rollback:
            rollback(root)
        elif asked.key is None:
            raise InstallError(
                "no public key is given, so nothing can be trusted", "add --key public-key.json, as its maker gave it to you"
            )
        else:
            today = time.strftime("%Y-%m-%d", time.gmtime())
            install(asked.bundle.absolute(), asked.key, root, today, allow_older=asked.allow_older)
    except (InstallError, OSError) as error:
        return _tell(error, root)
    return OK


def _tell(error: InstallError | OSError, root: Path) -> int:
    if not isinstance(error, InstallError):
        message = f"{error.filename or root}: {error.strerror or error}"
        error = InstallError(message, "free space or choose another --root, then run the same command again")
    sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
    return error.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
