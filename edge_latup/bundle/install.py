"""Installs a bundle with nothing but Python's standard library: verify, copy, install the wheels, self-test, then switch.

This file is in every bundle, and it is also printed by `edge-latup package installer`, so that an IT department can bring its own copy
beside the public key. It touches nothing outside the folder it installs into (--root) and needs no administrator.

    python3 install.py BUNDLE --key public-key.json [--root FOLDER]     install, or continue an installation that was cut
    python3 install.py --rollback [--root FOLDER]                       go back to the version before

Layout of --root: versions/ID/ (bundle/, site/, installed.json), current and previous (files that hold an ID), state/, segment, edge-latup.
The switch is one rename of `current`, made only after the new version passed its self-test.
"""

# Kept to syntax of Python 3.6, so that an older Python gets the sentence below and not a SyntaxError.
import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

BLOCK = 1 << 20
OK, FAILED, USAGE, REFUSED = 0, 1, 2, 5
VERIFIED_FIRST = "do not install it; copy the bundle again, and report it if that does not help"


class Stop(Exception):
    """What ends the installation: a sentence, what to do next, and the exit code."""

    def __init__(self, message, hint="", code=USAGE):
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


# Ed25519 (RFC 8032, section 5.1), verification only: Python's library has no signatures, and nothing of a bundle may run before its own
# is checked. One signature takes milliseconds. No secret is handled, so timing does not matter.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def _x_of(y, sign):
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def _add(a, b):
    """Sum of two points in extended coordinates (X, Y, Z, T)."""
    s, t = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    u, v = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = t - s, v - u, v + u, t + s
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar, point):
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point, scalar = _add(point, point), scalar >> 1
    return total


def _same(a, b):
    return not ((a[0] * b[2] - b[0] * a[2]) % P or (a[1] * b[2] - b[1] * a[2]) % P)


def _point(encoded):
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x = _x_of(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def _base():
    y = 4 * pow(5, P - 2, P) % P
    x = _x_of(y, 0)
    return x, y, 1, x * y % P


def is_signed(public, signature, content):
    """Whether a 64-byte signature over `content` is of the 32-byte public key."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, point, scalar = _point(public), _point(signature[:32]), int.from_bytes(signature[32:], "little")
    if key is None or point is None or scalar >= L:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + content).digest(), "little") % L
    return _same(_times(scalar, _base()), _add(point, _times(challenge, key)))


# Verification of the folder.


def refused(name, what):
    """The end for a file that is not what was signed."""
    return Stop(f"{ascii(name)[1:-1]} {what}", VERIFIED_FIRST, REFUSED)


def read_json(path, content):
    """A JSON object that holds no key twice."""

    def unique(pairs):
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    try:
        data = json.loads(content.decode("ascii"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise refused(path, "is not valid JSON")
    if not isinstance(data, dict):
        raise refused(path, "is not a JSON object")
    return data


def canonical(data):
    """The one way in which signed records are written."""
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def verified_manifest(bundle, key_path, today):
    """manifest.json of a folder, once its signature by the key holds."""
    try:
        with open(key_path, "rb") as file:
            key = read_json(key_path, file.read(16 << 10))
        named = key.pop("key_id")
        public = bytes.fromhex(key["public_key"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Stop(f"{key_path} is not a public key: {error}", "give the maker's public-key.json")
    if hashlib.sha256(canonical(key)).hexdigest()[:32] != named:
        raise Stop(f"{key_path} was changed since it was made", "ask the maker for public-key.json again")
    heads = []
    for name, most in (("manifest.json", 4 << 20), ("manifest.sig", 1 << 10)):
        path = os.path.join(bundle, name)
        if os.path.islink(path) or not os.path.isfile(path):
            raise refused(name, "is missing, or a link")
        with open(path, "rb") as file:
            heads.append(file.read(most + 1))
        if len(heads[-1]) > most:
            raise refused(name, "is larger than it may be")
    signature, manifest = read_json("manifest.sig", heads[1]), None
    if signature.get("key_id") != named:
        raise Stop("the bundle is signed with the key {}, not {}".format(ascii(signature.get("key_id")), named), VERIFIED_FIRST, REFUSED)
    try:
        signed = is_signed(public, bytes.fromhex(signature["signature"]), heads[0])
    except (KeyError, TypeError, ValueError):
        signed = False
    if not signed:
        raise refused("manifest.json", "does not carry a valid signature of {}".format(key.get("owner")))
    manifest = read_json("manifest.json", heads[0])
    check_dates(manifest, key, named, today)
    return manifest, hashlib.sha256(heads[0]).hexdigest()


def check_dates(manifest, key, named, today):
    """Refuse other keys, other schemas, and what is past its date."""
    if manifest.get("key_id") != named:
        raise refused("manifest.json", "asks for another key")
    schema = manifest.get("schema_version")
    if schema != 1 or schema < key.get("minimum_schema", 1):
        raise Stop(f"the bundle has schema {schema!a}, this installer reads 1", "use the installer of that version", REFUSED)
    for what, last in (("bundle", manifest.get("expires")), ("key", key.get("expires"))):
        if last is not None and today > last:
            raise Stop(f"the {what} expired on {last!a}", "ask its maker for a new one", REFUSED)


def names_of(folder):
    """Every file of a folder, POSIX and relative; refuses links and special files."""
    for above, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(above, name)
            short = os.path.relpath(path, folder).replace(os.sep, "/")
            if os.path.islink(path) or not (os.path.isdir(path) or os.path.isfile(path)):
                raise refused(short, "is a link or a special file")
            if name in files:
                yield short


def unsafe(path):
    """Whether a path of the manifest could leave the folder or be another file on some system."""
    parts = path.split("/")
    plain = all(" " <= letter <= "~" and letter not in '<>:"\\|?*' for letter in path)
    return not plain or any(part in ("", ".", "..") or part[-1] in " ." for part in parts)


def copy_verified(bundle, manifest, destination):
    """Copy what the manifest lists, and only that, hashing what is written."""
    listed = {file["path"]: file for file in manifest["files"]}
    reserved = {"manifest.json", "manifest.sig"}
    present = set(names_of(bundle)) - reserved
    for path in sorted(set(listed) - present):
        raise refused(path, "is missing")
    for path in sorted(present - set(listed)):
        raise refused(path, "was added: it is not in the manifest")
    for path, file in sorted(listed.items()):
        if unsafe(path):
            raise refused(path, "has a name that is not allowed")
        target = os.path.join(destination, *path.split("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with open(os.path.join(bundle, *path.split("/")), "rb") as source, open(target, "xb") as copy:
            for block in iter(lambda: source.read(BLOCK), b""):
                digest.update(block)
                size += len(block)
                copy.write(block)
        if size != file["size"] or digest.hexdigest() != file["sha256"]:
            raise refused(path, "was altered: it is not what was signed")
        os.chmod(target, 0o755 if file["executable"] else 0o644)
    for name in sorted(reserved):
        shutil.copyfile(os.path.join(bundle, name), os.path.join(destination, name))


# Installation.


def say(text):
    """Progress, for people."""
    print(text, flush=True)


def write_atomically(path, text, mode=0o644):
    """Replace a small file in one step."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".part-")
    with os.fdopen(handle, "w", encoding="ascii", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(temporary, mode)
    os.replace(temporary, path)


def read_small(path):
    """Content of a small file without white space around it; None where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read(200).strip()
    except OSError:
        return None


def clean_environment(root):
    """An environment in which pip and the self-test read no user's settings and write nowhere else."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH")}
    temporary = os.path.join(root, "state", "tmp")
    os.makedirs(temporary, exist_ok=True)
    return dict(kept, HOME=root, USERPROFILE=root, TMPDIR=temporary, TEMP=temporary, TMP=temporary, PIP_CONFIG_FILE=os.devnull)


def install_wheels(version, root):
    """pip, out of the bundle, installs the locked wheels into version/site."""
    bundle, python = os.path.join(version, "bundle"), "{}.{}".format(*sys.version_info[:2])
    lock = os.path.join(bundle, "wheels", f"lock-{python}.txt")
    if not os.path.isfile(lock):
        with open(os.path.join(bundle, "manifest.json"), encoding="ascii") as file:
            served = ", ".join(json.load(file)["pythons"])
        raise Stop(f"this is Python {python}, and the bundle serves {served}", "run install.py with one of them")
    wheels = os.path.join(bundle, "wheels")
    pip = next(os.path.join(wheels, name) for name in sorted(os.listdir(wheels)) if name.startswith("pip-"))
    command = [sys.executable, "-I", os.path.join(pip, "pip"), "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    command += ["--no-deps", "--no-cache-dir", "--require-hashes", "--find-links", wheels, "--target", os.path.join(version, "site")]
    command += ["--no-warn-script-location", "-r", lock]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment(root))
    if done.returncode:
        words = done.stdout.decode("utf-8", "replace").strip().splitlines()
        raise Stop(f"the wheels could not be installed: {words[-1] if words else done.returncode}", "\n".join(words[-6:]), FAILED)


def command_of(version):
    """What starts edge-latup's runner of an installed version, with nothing of the system's or the user's packages."""
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); from edge_latup.cli.installed import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-I", "-S", "-c", start, os.path.join(version, "site")]


def self_test(version, root):
    """Run the golden case through the new version."""
    command = command_of(version) + ["--root", root, "--version", os.path.basename(version), "self-test"]
    done = subprocess.run(command, env=clean_environment(root))
    if done.returncode:
        raise Stop(
            "the new version did not pass its self-test, so it was not switched to", "the version before, if any, stays in use", FAILED
        )


LAUNCHER = """#!/bin/sh
# Made by install.py. Starts the installed version with the Python it was installed with.
root=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
version=$(cat "$root/current") || {{ echo "error: no version is installed in $root" >&2; exit 2; }}
python=$(cat "$root/versions/$version/python") || exit 1
exec "$python" -I -S -c '{start}' "$root/versions/$version/site" --root "$root" --version "$version" {verb} "$@"
"""
WINDOWS_LAUNCHER = """@echo off
rem Made by install.py. Starts the installed version with the Python it was installed with.
set /p version=<"%~dp0current"
set /p python=<"%~dp0versions\\%version%\\python"
"%python%" -I -S -c "{start}" "%~dp0versions\\%version%\\site" --root "%~dp0." --version "%version%" {verb} %*
"""


def write_launchers(root):
    """Segment and edge-latup: the same words for every version, so they are never in between two."""
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); from edge_latup.cli.installed import main; sys.exit(main(sys.argv[1:]))"
    for name, verb in (("segment", "segment"), ("edge-latup", "run")):
        if os.name == "nt":
            write_atomically(os.path.join(root, name + ".cmd"), WINDOWS_LAUNCHER.format(start=start, verb=verb).replace("\n", "\r\n"))
        else:
            write_atomically(os.path.join(root, name), LAUNCHER.format(start=start, verb=verb), 0o755)


def size_of(folder):
    """Bytes of all files below a folder."""
    return sum(os.lstat(os.path.join(above, name)).st_size for above, _, files in os.walk(folder) for name in files)


def install(bundle, key, root, today):
    """The whole installation; what an earlier one left unfinished is removed first."""
    began = time.time()
    manifest, digest = verified_manifest(bundle, key, today)
    lock = only_one(root)
    identity = "{}-{}-{}".format(manifest["name"], manifest["version"], digest[:12])
    versions = os.path.join(root, "versions")
    os.makedirs(versions, exist_ok=True)
    for name in os.listdir(versions):
        if name.startswith(".part-"):
            shutil.rmtree(os.path.join(versions, name))
    version = os.path.join(versions, identity)
    if os.path.isfile(os.path.join(version, "installed.json")):
        say(f"{identity} is here already; testing it")
    else:
        shutil.rmtree(version, ignore_errors=True)
        put_version(bundle, manifest, digest, version, root)
    say("self-test on this machine")
    self_test(version, root)
    switch(root, identity)
    say(f"{identity} is installed in {root}: {size_of(version) / 1e6:.0f} MB, {time.time() - began:.0f} s")
    say("segment a case: {} CASE --out LABELS.nii.gz".format(os.path.join(root, "segment")))
    lock.close()


def only_one(root):
    """An open file that no other installation into `root` can lock; the system lets go of it when the process ends, however it ends."""
    os.makedirs(os.path.join(root, "state"), exist_ok=True)
    file = open(os.path.join(root, "state", "install.lock"), "w")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise Stop(f"another installation into {root} is running", "wait until it ends, then run this again if needed")
    return file


def put_version(bundle, manifest, digest, version, root):
    """Copy and install beside the final place; the folder gets its name when all is there."""
    part = os.path.join(os.path.dirname(version), f".part-{os.getpid()}")
    os.makedirs(os.path.join(part, "bundle"))
    try:
        say("copying {:.0f} MB, checking every file".format(sum(file["size"] for file in manifest["files"]) / 1e6))
        copy_verified(bundle, manifest, os.path.join(part, "bundle"))
        say("installing the wheels")
        install_wheels(part, root)
        write_atomically(os.path.join(part, "python"), sys.executable + "\n")
        write_atomically(os.path.join(part, "installed.json"), json.dumps({"manifest_sha256": digest}) + "\n")
        os.sync() if hasattr(os, "sync") else None
        os.rename(part, version)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def switch(root, identity):
    """Make a version the one that the launchers start; the one before is kept for --rollback, older ones go."""
    before = read_small(os.path.join(root, "current"))
    if before and before != identity:
        write_atomically(os.path.join(root, "previous"), before + "\n")
    write_launchers(root)
    write_atomically(os.path.join(root, "current"), identity + "\n")
    kept = {identity, read_small(os.path.join(root, "previous"))}
    for name in os.listdir(os.path.join(root, "versions")):
        if name not in kept:
            shutil.rmtree(os.path.join(root, "versions", name), ignore_errors=True)


def rollback(root):
    """Make the previous version current again."""
    current, previous = (read_small(os.path.join(root, name)) for name in ("current", "previous"))
    if not previous or not os.path.isfile(os.path.join(root, "versions", previous, "installed.json")):
        raise Stop(f"there is no earlier version in {root}", "install the earlier bundle again")
    write_atomically(os.path.join(root, "current"), previous + "\n")
    write_atomically(os.path.join(root, "previous"), current + "\n")
    say(f"{previous} is in use again; {current} is kept")


def main(arguments):
    """Read the command line; every failure is one sentence and an exit code."""
    parser = argparse.ArgumentParser(description="Install an edge-latup bundle, offline, for this user.")
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("bundle", nargs="?", default=here, help="the unpacked bundle; the folder of this file unless given")
    parser.add_argument("--key", help="the maker's public-key.json, got by another way than the bundle")
    parser.add_argument(
        "--root", default=os.path.join(os.path.expanduser("~"), "edge-latup"), help="where to install; default: %(default)s"
    )
    parser.add_argument("--rollback", action="store_true", help="go back to the version before")
    asked = parser.parse_args(arguments)
    root = os.path.abspath(asked.root)
    try:
        if asked.rollback:
            rollback(root)
            return OK
        if not asked.key:
            raise Stop(
                "no public key is given, so nothing can be trusted", "add --key public-key.json, as the bundle's maker gave it to you"
            )
        install(os.path.abspath(asked.bundle), asked.key, root, time.strftime("%Y-%m-%d", time.gmtime()))
        return OK
    except Stop as stop:
        message, hint, code = stop.message, stop.hint, stop.code
    except OSError as error:
        message = f"{error.filename or root}: {error.strerror or error}"
        hint, code = "free space, or choose another --root; run the same command again", USAGE
    sys.stderr.write("error: {}\n{}".format(message, f"hint: {hint}\n" if hint else ""))
    return code


if __name__ == "__main__":
    if sys.version_info < (3, 10):
        sys.exit("error: this is Python {}.{}; edge-latup needs 3.10 or newer".format(*sys.version_info[:2]))
    sys.exit(main(sys.argv[1:]))
