"""The part that runs on the other host: standard library only, brought as text over SSH with every call, never installed.

Each call is `python -I -c BOOT SIZE COMMAND ARGUMENTS`; BOOT reads SIZE bytes of this file from stdin and executes them. Results are
JSON on stdout; errors are one JSON object on stderr.

A *work folder* belongs to one supervisor: a process in a session of its own that holds `lock`, starts what is asked for in `requests`,
and removes the folder and everything it started as soon as `stop` is there or `lease` was not touched for so many seconds. So nothing
outlives a connection that is gone for good. Everything it starts carries MARKER in its environment, by which strays are found.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

MARKER = "EDGE_LATUP_RUN"
TICK = 0.2
CHUNK = 1 << 18
SILENCE = 120
"""Seconds without a byte after which an upload ends itself (SIGALRM), where the connection is dead and nobody noticed."""
KEEP_BLOBS_SECONDS = 30 * 86400.0
PARENT_DEATH_SIGNAL = 1
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class AgentError(Exception):
    """What went wrong here, in a word that the other side knows and a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def tell(value: Any) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def sha256_of(path: Path) -> str:
    """Hex SHA-256, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# Blobs: files by their SHA-256, partial ones with the ending .part.


def prune(blobs: Path) -> None:
    """Forget what was not used for a month."""
    for path in blobs.iterdir():
        if time.time() - path.stat().st_mtime > KEEP_BLOBS_SECONDS:
            path.unlink(missing_ok=True)


def have(blobs: Path, wanted: list[str]) -> dict[str, Any]:
    """Bytes that are here of each wanted blob, -1 for all of it; a whole one that is no longer what it was is thrown away."""
    blobs.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {"free": shutil.disk_usage(blobs).free, "blobs": {sha: _present(blobs, sha) for sha in wanted}}


def _present(blobs: Path, sha: str) -> int:
    whole, part = blobs / sha, blobs / f"{sha}.part"
    if whole.is_file():
        if sha256_of(whole) == sha:
            os.utime(whole)
            return -1
        whole.unlink()
    return part.stat().st_size if part.is_file() else 0


def put(blobs: Path, sha: str, size: int, offset: int, source: BufferedReader) -> None:
    """Append stdin to a blob from `offset`; give it its name once it is whole and has the hash it should have.

    Two runs may bring the same file at once, such as those of a fleet that names a board twice: one writes, the other begins again.
    """
    part = blobs / f"{sha}.part"
    with part.open("ab", buffering=0) as file:
        _alone(file, part)
        if part.stat().st_size != offset:
            raise AgentError("again", f"{part} does not end at {offset}")
        try:
            while chunk := source.read1(CHUNK):
                signal.alarm(SILENCE)
                _write(file, chunk)
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno in DISK_FULL:
                part.unlink(missing_ok=True)
                raise AgentError("disk", f"the disk with {blobs} is full") from error
            raise
        if part.stat().st_size < size:
            raise AgentError("again", f"{part} ended at {part.stat().st_size} of {size} bytes")
        if sha256_of(part) != sha:
            part.unlink()
            raise AgentError("hash", f"what arrived is not the file with the SHA-256 {sha}")
        part.chmod(0o600)
        part.rename(blobs / sha)


def _alone(file: Any, part: Path) -> None:
    """Hold the file until it is closed; it must still be what its name stands for, which another run may have taken away meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AgentError("again", f"another run is writing {part}") from error
    if not part.is_file() or os.fstat(file.fileno()).st_ino != part.stat().st_ino:
        raise AgentError("again", f"another run has finished {part}")


def _write(file: Any, chunk: bytes) -> None:
    """All of the chunk: an unbuffered file may take less, as on a disk that fills up."""
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


# The work folder and its supervisor.


def locked(work: Path) -> bool:
    """Whether a supervisor holds the folder."""
    try:
        with (work / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def open_work(root: Path, run: str, lease: float) -> None:
    """Make the work folder and start its supervisor, unless both are there; sweep up after supervisors that were killed."""
    work = root / "work" / run
    if not locked(work):
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        (root / "blobs").mkdir(exist_ok=True, mode=0o700)
        prune(root / "blobs")
        for other in (root / "work").iterdir():
            if other != work and not locked(other) and stale(other, 60):
                remove(other)
        (work / "requests").mkdir(exist_ok=True)
        (work / "lease").touch()
        start_supervisor(work, lease)
    tell({"work": str(work)})


def stale(work: Path, seconds: float) -> bool:
    """Whether the lease was not touched for so long; a folder without one is as old as itself."""
    for path in (work / "lease", work):
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime > seconds
    return True


def start_supervisor(work: Path, lease: float) -> None:
    """Fork twice, so that it belongs to no session of sshd; the lock is taken first and inherited."""
    lock = (work / "lock").open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)  # waits, because `locked` holds it for a moment
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        Supervisor(work, lease).watch()
    finally:
        os._exit(0)


def processes(run: str) -> list[int]:
    """Every process of this user that carries the run's mark, but this one."""
    mark, found = f"{MARKER}={run}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0") and b") Z " not in (entry / "stat").read_bytes():
                    found.append(int(entry.name))
    return found


def remove(work: Path) -> None:
    """End all that runs for the folder, then remove it."""
    for _ in range(50):
        found = processes(work.name)
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not found:
            break
        time.sleep(0.05)
    shutil.rmtree(work, ignore_errors=True)


def die_with_parent() -> None:
    """In the child, between fork and exec: be killed when the supervisor is."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


class Supervisor:
    """Starts one request after the other, each with a sampler beside it where one is asked for."""

    def __init__(self, work: Path, lease: float) -> None:
        self.work, self.lease = work, lease
        self.running: subprocess.Popen[bytes] | None = None
        self.beside: subprocess.Popen[bytes] | None = None
        self.job = work

    def watch(self) -> None:
        """Until told to stop, or nobody asks any more."""
        try:
            while not (self.work / "stop").exists() and not stale(self.work, self.lease):
                self.step()
                time.sleep(TICK)
        finally:
            remove(self.work)
            for process in (self.running, self.beside):
                if process is not None:
                    process.wait()

    def step(self) -> None:
        """Note the end of a job, or start the next."""
        if self.running is not None:
            if self.running.poll() is not None:
                self.finish(self.running.returncode)
            return
        for request in sorted((self.work / "requests").glob("*.json")):
            self.job = request.with_suffix("")
            if not (self.job / "started").exists():
                self.start(json.loads(request.read_text()))
                return

    def start(self, request: dict[str, Any]) -> None:
        """Start a job: in a session of its own, with its output in files."""
        self.job.mkdir(exist_ok=True)
        (self.job / "started").touch()
        try:
            for folder in request["folders"]:
                (self.work / folder).mkdir(parents=True, exist_ok=True)
            if request.get("beside"):
                self.beside = self.process(request["beside"], request, "beside")
            self.running = self.process(request["argv"], request, "job")
        except OSError as error:
            (self.job / "stderr").write_text(f"{request['argv'][0]}: {error.strerror}\n")
            self.finish(127)

    def process(self, argv: list[str], request: dict[str, Any], kind: str) -> subprocess.Popen[bytes]:
        """One process that carries the mark and dies with this one."""
        names = ("stdout", "stderr") if kind == "job" else ("beside-stdout", "beside-stderr")
        wanted = {**os.environ, **request["env"], MARKER: self.work.name}
        with (self.job / names[0]).open("wb") as out, (self.job / names[1]).open("wb") as err:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.work, start_new_session=True, preexec_fn=die_with_parent,
                env={name: value for name, value in wanted.items() if value is not None},
            )  # fmt: skip

    def finish(self, code: int) -> None:
        """End the sampler, then say how the job ended."""
        if self.beside is not None:
            self.beside.terminate()
            try:
                self.beside.wait(5)
            except subprocess.TimeoutExpired:
                self.beside.kill()
        self.running = self.beside = None
        (self.job / "code.part").write_text(str(code))
        (self.job / "code.part").rename(self.job / "code")


def present(work: Path) -> None:
    """Refuse to go on with a folder whose supervisor is gone."""
    if not locked(work):
        raise AgentError("gone", f"the run in {work} has ended: nothing was heard for the length of its lease, or it was killed")


def hold(work: Path, seconds: float, source: BinaryIO) -> None:
    """Touch the lease whenever something arrives; ends with the connection, or where nothing came for so many seconds."""
    present(work)
    tell({"held": True})
    descriptor = source.fileno()
    while select.select([descriptor], [], [], seconds)[0] and os.read(descriptor, CHUNK):
        try:
            os.utime(work / "lease")
        except OSError:
            return


def place(work: Path, blobs: Path, files: dict[str, str]) -> None:
    """Lay blobs out in the work folder under the names a job knows them by."""
    present(work)
    for name, sha in files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        try:
            os.link(blobs / sha, path)
        except OSError:
            shutil.copyfile(blobs / sha, path)


def request(work: Path, name: str, wanted: dict[str, Any]) -> None:
    """Ask the supervisor for a job; asking twice is asking once."""
    present(work)
    path = work / "requests" / f"{name}.json"
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text(json.dumps(wanted))
        part.rename(path)
    tell({"requested": name})


def follow(work: Path, name: str, offset: int) -> None:
    """Pass a job's lines on from `offset` as they come, until it has ended and all was passed on."""
    job = work / "requests" / name
    while True:
        code = job / "code"
        ended = code.exists()
        offset = _pass_on(job / "stdout", offset, whole=ended)
        if ended:
            tell({"code": int(code.read_text()), "stderr": _tail(job / "stderr")})
            return
        present(work)
        time.sleep(TICK)


def _pass_on(path: Path, offset: int, *, whole: bool) -> int:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n") and not whole:
                break
            offset += len(line)
            tell({"line": line.decode(errors="replace").rstrip("\n"), "offset": offset})
    return offset


def _tail(path: Path, size: int = 8192) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes()[-size:].decode(errors="replace")
    return ""


def listing(folder: Path) -> dict[str, Any]:
    """Every file below a folder, with size and hash."""
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else [folder] if folder.is_file() else []
    return {str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in files}


def get(path: Path, offset: int) -> None:
    """A file's bytes from `offset`."""
    with path.open("rb") as file:
        file.seek(offset)
        shutil.copyfileobj(file, sys.stdout.buffer, CHUNK)
    sys.stdout.flush()


def close(work: Path) -> None:
    """Have the supervisor end everything and remove the folder; do it here where it does not."""
    with contextlib.suppress(OSError):
        (work / "stop").touch()
    for _ in range(100):
        if not locked(work):
            break
        time.sleep(0.1)
    remove(work)
    root = work.parent.parent
    for folder in (work.parent, root / "blobs", root):
        with contextlib.suppress(OSError):
            folder.rmdir()  # only an empty one goes: with --no-cache nothing is left
    tell({"closed": not work.exists()})


def main(arguments: list[str]) -> None:
    """One command."""
    command, first, *rest = arguments
    path = Path(first)
    source: Any = sys.stdin.buffer
    if command == "open":
        open_work(path, rest[0], float(rest[1]))
    elif command == "have":
        tell(have(path, json.load(source)))
    elif command == "put":
        put(path, rest[0], int(rest[1]), int(rest[2]), source)
    elif command == "hold":
        hold(path, float(rest[0]), source)
    elif command == "place":
        place(path, Path(rest[0]), json.load(source))
    elif command == "request":
        request(path, rest[0], json.load(source))
    elif command == "follow":
        follow(path, rest[0], int(rest[1]))
    elif command == "list":
        tell(listing(path))
    elif command == "get":
        get(path, int(rest[0]))
    elif command == "close":
        close(path)
    else:
        raise AgentError("bug", f"unknown command {command!r}")


def run(arguments: list[str]) -> int:
    """`main`, with errors told as JSON."""
    try:
        main(arguments)
    except AgentError as error:
        failure = {"kind": error.kind, "message": str(error)}
    except OSError as error:
        failure = {"kind": "disk" if error.errno in DISK_FULL else "system", "message": str(error)}
    else:
        return 0
    sys.stderr.write(json.dumps(failure) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
