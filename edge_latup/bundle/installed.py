"""An installed bundle: where its parts lie, whether its self-test still holds, and that one segmentation runs at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Final

from edge_latup.artifact import sha256_of
from edge_latup.bundle.fingerprint import fingerprint
from edge_latup.bundle.golden import FOLDER, read_golden
from edge_latup.bundle.manifest import MANIFEST_NAME
from edge_latup.bundle.on_device import engine_changed
from edge_latup.bundle.selftest import SelfTest, run_self_test
from edge_latup.errors import InputError, SpecError, VerificationError
from edge_latup.records import read_record, write_record
from edge_latup.runtimes.tensorrt_system import allow_system_tensorrt

MAX_AGE: Final = timedelta(hours=24)
OVERRIDE: Final = "--despite-failed-self-test"


@dataclass(frozen=True, kw_only=True)
class Installation:
    """One version in the folder that install.py made."""

    root: Path
    version: str

    @property
    def bundle(self) -> Path:
        """The verified copy of the bundle."""
        return self.root / "versions" / self.version / "bundle"

    @property
    def state(self) -> Path:
        """What is written after the installation: self-tests, compiled models, locks."""
        return self.root / "state"

    @property
    def cache(self) -> Path:
        """Compiled models of this version."""
        return self.state / "cache" / self.version

    @property
    def record(self) -> Path:
        """The latest self-test of this version."""
        return self.state / f"self-test-{self.version}.json"

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's manifest.json.

        Raises:
            InputError: this version is not installed.
        """
        path = self.bundle / MANIFEST_NAME
        if not path.is_file():
            raise InputError(f"{self.version} is not installed in {self.root}", "install the bundle again: install.sh")
        return sha256_of(path)

    def see_tensorrt(self) -> None:
        """Let a bundle with a TensorRT artifact, and no other, find the machine's own TensorRT."""
        try:
            wanted = any(one.numerics == "reference" for one in read_golden(self.bundle / FOLDER).expectations)
        except SpecError:
            return
        if wanted and allow_system_tensorrt():
            os.environ["CUDA_CACHE_PATH"] = str(self.cache / "cuda")  # the driver's own cache would be in the user's home

    def test(self, threads: int = 0, tell: Callable[[str], None] = lambda _: None) -> SelfTest:
        """Run the self-test and store its result; `tell` hears of what takes minutes.

        Raises:
            VerificationError: the golden case is damaged.
            InputError: the result cannot be stored.
        """
        self.see_tensorrt()
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            self.cache.chmod(0o700)  # an engine can hold code, and is not loaded from a folder that others can write to
            result = run_self_test(self.bundle, self.digest, threads=threads, cache=self.cache, tell=tell)
            write_record(result, self.record)
        except OSError as error:
            raise InputError(
                f"{self.state} cannot be written: {error.strerror or error}", "free space, or give the folder back to its owner"
            ) from error
        return result

    def outdated(self, *, now: datetime | None = None, own_packages: bool = True) -> str | None:
        """Why the stored self-test no longer holds, in words; None where it does.

        Args:
            now: in UTC.
            own_packages: whether this process uses the installation's Python and packages, so that they can be compared too.
        """
        try:
            stored = read_record(SelfTest, self.record)
        except SpecError:
            return "no self-test is stored"
        if stored.bundle != self.digest:
            return "the stored self-test is of another bundle"
        self.see_tensorrt()
        current = fingerprint()
        if not own_packages:
            current = current.model_copy(update={"python": stored.fingerprint.python, "packages": stored.fingerprint.packages})
        if changes := stored.fingerprint.changes(current):
            return "; ".join(changes)
        age = (now or datetime.now(timezone.utc)) - stored.finished
        if not timedelta(0) <= age <= MAX_AGE:
            return f"the last self-test was {stored.finished:%Y-%m-%d %H:%M} UTC, more than {MAX_AGE.total_seconds() / 3600:.0f} h ago"
        if stored.engine is not None and stored.chosen is not None:
            return engine_changed(stored.engine, self.bundle / stored.chosen, self.cache, ask_gpu=own_packages)
        return None

    def artifact(self, result: SelfTest, *, despite_failure: bool = False) -> Path:
        """The artifact to segment with: the best that passed.

        Raises:
            VerificationError: none passed, and that is not overridden.
        """
        if result.chosen is not None:
            return self.bundle / result.chosen
        if despite_failure:
            return self.bundle / result.artifacts[0].artifact
        failed = [f"{test.artifact}: {check.name}: {check.found}" for test in result.artifacts for check in test.checks if not check.passed]
        hint = f"ask who made the bundle; results cannot be trusted. To segment all the same, for a test: {OVERRIDE}"
        raise VerificationError(f"the self-test on this machine failed, so nothing is segmented: {'; '.join(failed)}", hint)

    def stored(self) -> SelfTest:
        """The latest self-test.

        Raises:
            SpecError: there is none.
        """
        return read_record(SelfTest, self.record)


@dataclass(frozen=True, kw_only=True)
class Status:
    """What `edge-latup doctor --bundle` shows of an installation."""

    version: str
    previous: str | None
    """The version that `install.py --rollback` goes back to."""
    outdated: str | None
    """Why the self-test is run again before the next segmentation; None where it holds."""
    result: SelfTest | None
    """The latest self-test; None where none is stored."""

    @property
    def ready(self) -> bool:
        """Whether the launcher segments as things stand."""
        return self.outdated is None and self.result is not None and self.result.chosen is not None


def status_of(root: Path) -> Status:
    """The version in use in the folder that install.py made, and its self-test; nothing is run.

    Asked by another edge-latup than the installed one, it compares the machine only, not the packages.

    Raises:
        InputError: no bundle is installed there.
    """
    version = _named_in(root / "current")
    if version is None:
        raise InputError(f"no bundle is installed in {root}", "give the folder that install.py was told as --root")
    here = Installation(root=root.absolute(), version=version)
    result = here.stored() if here.digest and here.record.is_file() else None
    outdated = here.outdated(own_packages=Path(__file__).is_relative_to(here.bundle.parent))
    return Status(version=version, previous=_named_in(root / "previous"), outdated=outdated, result=result)


def _named_in(path: Path) -> str | None:
    """The version that a small file names; a name is no path."""
    try:
        name = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if name and Path(name).name == name else None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a lock that no other process gets; the system lets go of it when this process ends, however it ends.

    Raises:
        InputError: another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "run.lock").open("a+")
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror or error}", "free space, or give the folder back to its owner"
        ) from error
    with file:
        _lock(file)
        yield


def _lock(file: IO[str]) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(
            "another segmentation is running from this installation", "wait until it ends, then start this one again"
        ) from None
