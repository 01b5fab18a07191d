"""A run's time on another host: probe it, bring files, start jobs there, fetch what they wrote, leave nothing behind.

Everything is asked of `remote_agent`, so that a lost connection can be made anew and the question asked again. What was brought is kept
there by its SHA-256, but for what was called private. A supervisor on that host ends all of it when nobody is heard for `lease` seconds.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from edge_latup.artifact import sha256_of
from edge_latup.errors import EdgeLatupError, RemoteError
from edge_latup.records import replacing
from edge_latup.targets.remote_host import RemoteHost
from edge_latup.targets.remote_parts import Ended, Probe, RemoteJob, Watcher
from edge_latup.targets.ssh import Link, LinkLostError, Reply, python_call

Result = TypeVar("Result")
LEASE_SECONDS: Final = 120.0
OLDEST_PYTHON: Final = (3, 10)
MODULES: Final = ("numpy", "pydantic", "nibabel", "openvino", "onnxruntime", "pynvml", "pip")
SPARE_DISK: Final = 16 << 20
"""Bytes left free beside what is brought: for label maps, rows and samples."""
CHUNK: Final = 1 << 18
MOST_RECONNECTIONS: Final = 20
NOT_FOUND: Final = (126, 127)
"""What shells answer where a command is missing or cannot be executed."""


class RemoteSession:
    """One work folder on one host; a context manager that removes it.

    Args:
        host: where.
        note: gets lines of progress.
        lease: seconds after which the other side ends itself where nothing is heard from here.
        keep: whether artifact, input and runner stay in the cache there for the next run.
    """

    def __init__(
        self, host: RemoteHost, note: Callable[[str], None], *, lease: float = LEASE_SECONDS, keep: bool = True
    ) -> None:  # fmt: skip
        self.host, self.lease, self.run = host, lease, uuid.uuid4().hex[:16]
        self._note, self._keep, self._reconnections = note, keep, 0
        self._agent = _source("remote_agent.py")
        self.link = Link(host)
        self.probe: Probe
        self.work = ""

    def __enter__(self) -> RemoteSession:
        self.link.__enter__()
        try:
            self.probe = self._steady(self._probe)
            self._steady(self._open)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self.work:
                self._close(patient=error is None)
        finally:
            self.link.__exit__(kind, error, trace)

    def bring(self, files: Mapping[str, Path], *, private: bool = False) -> None:
        """Have local files there under these names, relative to the work folder; what is there already is not sent again.

        Args:
            files: name there -> local file.
            private: keep no copy in the cache.

        Raises:
            RemoteError: the disk there is full, or what arrived is not what was sent.
        """
        blobs = f"{self.work}/private" if private or not self._keep else f"{self.probe.cache}/blobs"
        by_hash = {sha256_of(path): path for path in files.values()}
        named = {name: sha256_of(path) for name, path in files.items()}
        self._steady(lambda: self._upload(by_hash, blobs))
        self._steady(lambda: self._ask("place", self.work, blobs, payload=[json.dumps(named).encode()]))

    def execute(self, name: str, job: RemoteJob, on_line: Callable[[str], None]) -> Ended:
        """Start a job and wait for its end; after a lost connection the same job is waited for, not another one started.

        Raises:
            RemoteError: the connection did not come back within the lease, or the job's supervisor is gone.
        """
        wanted = {"argv": job.argv, "env": dict(job.environment), "beside": job.beside, "folders": job.folders}
        self._steady(lambda: self._ask("request", self.work, name, payload=[json.dumps(wanted).encode()]))
        watcher = Watcher(on_line)
        self._steady(lambda: self._ask("follow", self.work, name, str(watcher.begin()), take=watcher.take))
        if watcher.ended is None:
            raise RemoteError(f"{self.host.shown} did not tell how {name} ended", "run the same command again")
        return watcher.ended

    def fetch(self, name: str, to: Path) -> None:
        """Bring a file of the work folder, or all files of a folder, and check their hashes; nothing where there is none."""
        listed = self._answer(lambda: self._ask("list", f"{self.work}/{name}"))
        for relative, about in listed.items():
            _refuse_escape(relative, self.host)
            target = to if relative == "." else to / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            source = f"{self.work}/{name}" if relative == "." else f"{self.work}/{name}/{relative}"
            self._steady(lambda source=source, target=target, about=about: self._get(source, target, about["sha256"]))  # type: ignore[misc]

    def _get(self, source: str, target: Path, sha: str) -> None:
        with replacing(target) as temporary:
            with temporary.open("wb") as file:
                self._ask("get", source, "0", take=lambda piece: _write(file.write, piece))
            if sha256_of(temporary) != sha:
                raise RemoteError(f"{source} of {self.host.shown} arrived damaged", "run the same command again")

    def _upload(self, files: Mapping[str, Path], blobs: str) -> None:
        told = json.loads(self._ask("have", blobs, payload=[json.dumps(list(files)).encode()]).out)
        missing = {sha: told["blobs"][sha] for sha in files if told["blobs"][sha] >= 0}
        needed = sum(files[sha].stat().st_size - present for sha, present in missing.items())
        if missing and needed + SPARE_DISK > told["free"]:
            raise self._disk_full(f"{needed / 1e6:,.1f} MB are to be copied and {told['free'] / 1e6:,.1f} MB are free at {blobs}")
        for sha, present in missing.items():
            self._put(sha, files[sha], present, blobs)

    def _put(self, sha: str, path: Path, present: int, blobs: str) -> None:
        size = path.stat().st_size
        offset = present if present <= size else 0
        resumed = f", from {offset / 1e6:,.1f} MB" if offset else ""
        self._note(f"{self.host.name}: copying {path.name} ({size / 1e6:,.1f} MB{resumed})")
        self._ask("put", blobs, sha, str(size), str(present), payload=_pieces(path, offset))

    def _probe(self) -> Probe:
        modules = list(MODULES)
        reply = self._python(_source("remote_probe.py"), [self.host.cache, *modules])
        try:
            found = Probe.model_validate_json(reply.out)
        except ValueError as error:
            told = reply.err.strip().splitlines()[-1:] or [f"it ended with code {reply.code}"]
            raise RemoteError(f"{self.host.python} on {self.host.shown} does not work: {told[0]}", self._python_hint()) from error
        if tuple(int(part) for part in found.python.split(".")[:2]) < OLDEST_PYTHON:
            raise RemoteError(f"{self.host.shown} has Python {found.python}; 3.10 or newer is needed", self._python_hint())
        return found

    def _open(self) -> None:
        reply = self._ask("open", self.probe.cache, self.run, str(self.lease))
        self.work = str(json.loads(reply.out)["work"])
        self._hold()

    def _hold(self) -> None:
        command, text = python_call(self.host.python, self._agent, ["hold", self.work, str(self.lease)])
        if (refusal := self.link.keep_saying(command, text, self.lease / 6)) is not None:
            raise self._failure(refusal)

    def _close(self, *, patient: bool) -> None:
        """Have the work folder removed; where there is no connection any more, the lease sees to it."""
        try:
            (self._steady if patient else _once)(lambda: self._ask("close", self.work))
        except EdgeLatupError as error:
            self._note(f"{self.host.name}: {error.message}; its work folder removes itself within {self.lease:.0f} s")

    def _ask(
        self, *arguments: str, payload: Iterable[bytes] = (), take: Callable[[bytes], None] | None = None
    ) -> Reply:  # fmt: skip
        """One command of the agent.

        Raises:
            RemoteError: it failed there.
            LinkLostError: the connection ended first.
        """
        reply = self._python(self._agent, arguments, payload, take)
        if reply.code:
            raise self._failure(reply)
        return reply

    def _answer(self, ask: Callable[[], Reply]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._steady(ask).out)
        return answer

    def _python(
        self, source: str, arguments: Sequence[str], payload: Iterable[bytes] = (), take: Callable[[bytes], None] | None = None
    ) -> Reply:  # fmt: skip
        command, text = python_call(self.host.python, source, arguments)
        reply = self.link.run(command, _after(text, payload), take)
        if reply.code in NOT_FOUND:
            raise RemoteError(f"there is no {self.host.python} on {self.host.shown}", self._python_hint())
        return reply

    def _python_hint(self) -> str:
        return "install Python 3.10 or newer there, or name one that is there: --python PATH (in a fleet file: python)"

    def _failure(self, reply: Reply) -> EdgeLatupError:
        try:
            told = json.loads(reply.err.strip().splitlines()[-1])
            kind, message = str(told["kind"]), str(told["message"])
        except (IndexError, ValueError, KeyError, TypeError):
            return RemoteError(f"{self.host.shown}: {reply.err.strip() or f'the agent ended with code {reply.code}'}")
        if kind == "disk":
            return self._disk_full(message)
        if kind == "gone":
            return RemoteError(f"{self.host.shown}: {message}", "run the same command again: what was copied is still there")
        if kind == "hash":
            return RemoteError(
                f"{self.host.shown}: {message}; it was thrown away", "run again; if it recurs, connection or disk damage data"
            )
        return LinkLostError(message) if kind == "again" else RemoteError(f"{self.host.shown}: {message}")

    def _disk_full(self, message: str) -> RemoteError:
        return RemoteError(
            f"not enough room on the disk of {self.host.shown}: {message}",
            f"free some there, or choose a folder on another disk with --remote-cache (now {self.host.cache})",
        )

    def _steady(self, action: Callable[[], Result]) -> Result:
        """Do it; where the connection was lost, connect again and do it again."""
        while True:
            try:
                return action()
            except LinkLostError as error:
                self._reconnect(error)

    def _reconnect(self, lost: LinkLostError) -> None:
        self._reconnections += 1
        until, pause = time.monotonic() + self.lease, 0.2
        self._note(f"{self.host.name}: {lost.message}; connecting again")
        while self._reconnections <= MOST_RECONNECTIONS:
            try:
                self.link.connect()
                if self.work:
                    self._hold()
                return
            except LinkLostError as error:
                lost = error
            if time.monotonic() + pause > until:
                break
            time.sleep(pause)
            pause = min(pause * 2, 10)
        raise RemoteError(
            f"{lost.message}; it did not come back within {self.lease:.0f} s",
            "the run there ends itself and removes its folder; run the same command again: what was copied is still there",
        ) from lost


def _once(action: Callable[[], Result]) -> Result:
    return action()


def _source(name: str) -> str:
    return (resources.files("edge_latup.targets") / name).read_text(encoding="utf-8")


def _after(text: bytes, payload: Iterable[bytes]) -> Iterator[bytes]:
    yield text
    yield from payload


def _pieces(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(CHUNK):
            yield piece


def _write(write: Callable[[bytes], int], piece: bytes) -> None:
    write(piece)


def _refuse_escape(relative: str, host: RemoteHost) -> None:
    """Another host does not choose where files are written here."""
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise RemoteError(f"{host.shown} offers a file named {relative!r}", "do not trust that host")
