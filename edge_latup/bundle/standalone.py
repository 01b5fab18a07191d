"""The variant for machines without Python: the runner as one folder with its own Python, frozen by PyInstaller from the locked wheels.

It is made on the platform that it is for, and needs the C library of that machine or a newer one. Linux only.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from edge_latup.bundle.install import APP, PROGRAM
from edge_latup.bundle.platforms import PLATFORMS, PlatformName
from edge_latup.bundle.wheelhouse import Locked, lock_text, resolve
from edge_latup.errors import InputError, MissingDependencyError

TOOLS: Final = frozenset({"altgraph", "packaging", "pip", "setuptools"})
"""What only freezing needs. PyInstaller and its hooks are no part of the app either, but PyInstaller's loader is, and is listed."""
WHOLE: Final = ("openvino", "onnxruntime")
"""Packages that load parts of themselves by name, so all of them comes along."""
ENTRY: Final = """import sys
if sys.argv[1:2] == ["install"]:
    from edge_latup.bundle.install import main as install
    sys.exit(install(sys.argv[2:]))
from edge_latup.cli.installed import main
sys.exit(main(sys.argv[1:]))
"""
LAST_LINES: Final = 8

INSTALL_SH: Final = """#!/bin/sh
# Installs a bundle that brings its own Python. Nothing of the bundle's program is run before OpenSSL said that its list of files is
# signed by the key, and sha256sum that each file of the program is as listed; what runs then is the copy that was hashed. The program
# itself verifies everything else before it installs.
#     install.sh [BUNDLE] --key public-key.json [--root FOLDER] [--allow-older]
#     install.sh --rollback [--root FOLDER]
set -eu
LC_ALL=C
export LC_ALL
umask 022

fail() {
    printf 'error: %s\\nhint: %s\\n' "$2" "$3" >&2
    exit "$1"
}
refuse() { fail 5 "$1" 'do not install it; copy the bundle again, and report it if that does not help'; }

bundle=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
key='' root="${HOME:-}/edge-latup" rollback='' older=''
while [ $# -gt 0 ]; do
    case $1 in
        --key | --root)
            [ $# -gt 1 ] || fail 2 "$1 names nothing" "add a path after $1"
            if [ "$1" = --key ]; then key=$2; else root=$2; fi
            shift
            ;;
        --rollback) rollback=yes ;;
        --allow-older) older=--allow-older ;;
        -*) fail 2 "there is no option $1" 'use --key, --root, --allow-older, --rollback' ;;
        *) bundle=$1 ;;
    esac
    shift
done
case $root in /*) ;; *) root=$(pwd)/$root ;; esac

if [ -n "$rollback" ]; then
    program=$root/versions/$(cat "$root/current")/bundle/app/edge-latup
    [ -x "$program" ] || fail 2 "no version without Python is in use in $root" 'use install.py --rollback'
    exec "$program" install --rollback --root "$root"
fi
[ -f "$key" ] || fail 2 'no public key is given, so nothing can be trusted' 'add --key public-key.json, as its maker gave it to you'
for tool in openssl sha256sum awk sed find sort cmp head mktemp; do
    command -v "$tool" >/dev/null || fail 2 "$tool is missing, so nothing can be verified" \\
        "install $tool, or take a bundle with wheels"
done
openssl pkeyutl -help 2>&1 | grep -q -e '-rawin' || fail 2 'this OpenSSL knows no Ed25519 signatures' 'install OpenSSL 3 or newer'

mkdir -p "$root/state" || fail 2 "$root cannot be written" 'free space or choose another --root'
work=$(mktemp -d "$root/state/verify.XXXXXX") || fail 2 "$root cannot be written" 'free space or choose another --root'
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Bytes of hexadecimal digits.
unhex() {
    digits=$1
    while [ -n "$digits" ]; do
        rest=${digits#??}
        printf '%b' "\\\\0$(printf '%03o' "0x${digits%"$rest"}")"
        digits=$rest
    done
}

for name in manifest.json manifest.sig; do
    { [ -f "$bundle/$name" ] && [ ! -L "$bundle/$name" ]; } || refuse "$name is missing, or a link"
    head -c 4194304 "$bundle/$name" >"$work/$name"
done
public=$(sed -n 's/^  "public_key": "\\([0-9a-f]\\{64\\}\\)",\\{0,1\\}$/\\1/p' "$key")
signature=$(sed -n 's/^  "signature": "\\([0-9a-f]\\{128\\}\\)"$/\\1/p' "$work/manifest.sig")
[ ${#public} = 64 ] || fail 2 "$key is not a public key" "give the maker's public-key.json"
[ ${#signature} = 128 ] || refuse 'manifest.sig holds no signature'
unhex "302a300506032b6570032100$public" >"$work/key"  # RFC 8410: what goes before a raw Ed25519 key
unhex "$signature" >"$work/signature"
openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key" -rawin -in "$work/manifest.json" -sigfile "$work/signature" \\
    >/dev/null 2>&1 || refuse 'manifest.json does not carry a valid signature of this key'

# The signed bytes are canonical JSON: a field a line, "path" before "sha256".
awk '/^      "path": "/ { path = substr($0, 16, length($0) - 17) }
    /^      "sha256": "/ && path ~ /^app\\// { print substr($0, 18, 64) "  " path }' "$work/manifest.json" >"$work/listed"
[ -s "$work/listed" ] || fail 2 'this bundle brings no program of its own' 'use the install.py of the bundle, with Python'
[ ! -L "$bundle/app" ] || refuse 'app is a link'
cp -RP "$bundle/app" "$work/app" 2>"$work/said" \\
    || fail 2 "$(head -n 1 "$work/said")" 'free space or choose another --root, then run it again'
cd "$work"
odd=$(find app ! -type f ! -type d | head -n 1)
[ -z "$odd" ] || refuse "$odd is a link or a special file"
sed 's/^.\\{66\\}//' listed | sort >names
find app -type f | sort >found
cmp -s names found || refuse "$(sort names found | uniq -u | head -n 1) is missing, or was added"
altered=$(sha256sum --check --quiet --strict listed 2>/dev/null | head -n 1) || true
[ -z "$altered" ] || refuse "${altered%: FAILED*} was altered: it is not what was signed"
sha256sum --check --status --strict listed || refuse 'app was altered: it is not what was signed'
chmod 755 app/edge-latup

cd "$OLDPWD"
code=0
"$work/app/edge-latup" install "$bundle" --key "$key" --root "$root" ${older:+"$older"} || code=$?
exit "$code"
"""


def check_standalone(chosen: PlatformName) -> None:
    """Refuse what cannot be frozen here.

    Raises:
        InputError: the platform is not this machine's, or not Linux.
    """
    if chosen != f"linux-{platform.machine().replace('_', '-')}" or sys.platform != "linux":
        what = f"the variant without Python for {chosen} cannot be made on {sys.platform} {platform.machine()}"
        raise InputError(what, "make it on a Linux machine of that platform, or leave --standalone out")


def build_app(own: Path, extras: Iterable[str], chosen: PlatformName, store: Path, out: Path) -> tuple[Locked, ...]:
    """Freeze the runner into the folder `out`/app.

    Args:
        own: edge-latup's wheel.
        extras: of it, such as "core".
        chosen: this machine's platform.
        store: keeps downloaded wheels.
        out: the bundle.

    Returns:
        The packages in it: PyInstaller for its loader too, but not what only freezing needs.

    Raises:
        InputError: a wheel is missing.
        MissingDependencyError: PyInstaller failed.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    wheels = resolve(own, {*extras, "standalone"}, PLATFORMS[chosen], python, store)
    with tempfile.TemporaryDirectory(prefix="edge-latup-app-") as temporary:
        work = Path(temporary)
        interpreter = _environment(wheels, (own.parent, store), work)
        _freeze(interpreter, [one.name for one in wheels if one.name not in TOOLS], work)
        # Links are conveniences of PyInstaller's: every library finds its own by a path relative to itself.
        shutil.copytree(work / "dist" / PROGRAM, out / APP, ignore=_links)
    _remove_empty(out / APP)
    return tuple(one for one in wheels if one.name not in TOOLS)


def write_python_licence(folder: Path) -> None:
    """Python's own licence, which no wheel brings."""
    path = Path(sysconfig.get_path("stdlib"), "LICENSE.txt")
    if path.is_file():
        place = folder / f"cpython-{platform.python_version()}"
        place.mkdir(parents=True)
        shutil.copyfile(path, place / path.name)


def _environment(wheels: Iterable[Locked], folders: Sequence[Path], work: Path) -> Path:
    """A virtual environment of nothing but the locked wheels, so that nothing of the engineer's is frozen; its Python."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(work / "venv")])
    interpreter = work / "venv" / "bin" / "python"
    lock = work / "lock.txt"
    lock.write_text(lock_text(wheels), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(interpreter), "install", "--quiet", "--no-index"]
    command += ["--no-deps", "--no-compile", "--require-hashes", "-r", str(lock)]
    _run([*command, *(word for folder in folders for word in ("--find-links", str(folder)))])
    return interpreter


def _freeze(interpreter: Path, packages: Sequence[str], work: Path) -> None:
    entry = work / f"{PROGRAM}.py"
    entry.write_text(ENTRY, encoding="utf-8")
    command = [str(interpreter), "-I", "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR", "--onedir", "--console"]
    command += ["--name", PROGRAM]
    for option, name in (("--distpath", "dist"), ("--workpath", "work"), ("--specpath", "work")):
        command += [option, str(work / name)]
    command += ["--collect-data", "edge_latup", "--exclude-module", "setuptools", "--exclude-module", "pkg_resources"]
    command += [word for name in packages if name in WHOLE for word in ("--collect-all", name)]
    command += [word for name in packages if not name.startswith("pyinstaller") for word in ("--copy-metadata", name)]
    _run([*command, str(entry)], PYTHONHASHSEED="0", PYINSTALLER_CONFIG_DIR=str(work / "config"))


def _run(command: Sequence[str], **more: str) -> None:
    # PYTHONPATH would show pip and PyInstaller packages that are not in the lock.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**kept, **more})
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-LAST_LINES:])
        raise MissingDependencyError(f"the program could not be frozen: {said}", "mend what it says, or leave --standalone out")


def _links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_symlink()]


def _remove_empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
