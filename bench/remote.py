"""Rows measured on another host: the same worker code and the same records as here, with what its sensors told meanwhile."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edge_latup.bench.isolate import named
from edge_latup.bench.records import TimingRow
from edge_latup.bench.remote_worker import Described
from edge_latup.bench.run import PACKAGES, Entry
from edge_latup.bench.runner import write_runner
from edge_latup.bench.worker import Job, case_files
from edge_latup.cases.layout import MSD_LABELS, CaseFiles, absolute
from edge_latup.errors import EdgeLatupError, InputError, RemoteError
from edge_latup.manifest import RuntimeName
from edge_latup.records import read_record, write_record
from edge_latup.runtimes import runtime_made_for
from edge_latup.runtimes.fresh import failure
from edge_latup.targets.host import Host
from edge_latup.targets.isa import VARIABLES
from edge_latup.targets.remote_parts import RemoteJob
from edge_latup.targets.remote_session import RemoteSession
from edge_latup.targets.sampler import INTERVAL_SECONDS
from edge_latup.targets.telemetry import Window, read_samples, summarise
from edge_latup.versions import version_of

NEEDED: Final = ("numpy", "pydantic", "nibabel")
"""What the worker imports besides its runtime."""
RUNTIME_MODULES: Final[dict[RuntimeName, str]] = {"openvino": "openvino", "onnxruntime": "onnxruntime"}
"""Runtimes that rows can be made with there, and what they are imported by."""
START: Final = "import sys; sys.path[:] = filter(None, sys.path); from edge_latup.{} import main; sys.exit(main(sys.argv[1:]))"
RUNNER: Final = "runner.zip"
SITE: Final = "site"
SAMPLES: Final = "samples.jsonl"


class RemoteWorkers:
    """Does a run's jobs in one session on another host (see `bench.run.Workers`).

    Args:
        session: open.
        note: gets lines of progress.
        runtimes: that the rows will need.

    Raises:
        RemoteError: that Python lacks packages, or cannot import what was brought.
    """

    def __init__(self, session: RemoteSession, note: Callable[[str], None], runtimes: Sequence[RuntimeName]) -> None:
        self._session, self._note, self._jobs = session, note, 0
        self._shown = session.host.shown
        with tempfile.TemporaryDirectory(prefix="edge-latup-") as scratch:
            session.bring({RUNNER: write_runner(Path(scratch) / RUNNER)})
        self._have_packages(runtimes)
        self._described = self._describe()

    def check(self, entry: Entry) -> None:
        """Refuse an artifact that was not made for its runtime; what the host lacks was refused before."""
        runtime_made_for(entry.artifact, entry.runtime)

    def host(self) -> Host:
        """The machine."""
        return self._described.host

    def versions(self) -> dict[str, str]:
        """Of what is installed there, and of what was brought."""
        return self._described.versions | {"edge-latup": version_of("edge-latup")}

    def run(self, job: Job, out: Path, on_line: Callable[[str], None]) -> None:
        """Do one job there; its row, or its label maps, are at `out` here.

        Raises:
            EdgeLatupError: it failed; with the worker's own message.
            RemoteError: the host was lost, or has no room.
        """
        self._jobs += 1
        inside = f"job-{self._jobs:03d}"
        with tempfile.TemporaryDirectory(prefix="edge-latup-") as scratch:
            there = self._bring(job, inside)
            path = Path(scratch) / "job.json"
            write_record(there, path)
            self._session.bring({f"{inside}/job.json": path}, private=True)
            result = f"{inside}/out" if job.task == "segment" else f"{inside}/row.json"
            self._execute(inside, job, result, on_line)
            self._session.fetch(result, out)
            if job.task == "time":
                self._add_telemetry(out, inside, Path(scratch) / SAMPLES)

    def _execute(self, inside: str, job: Job, result: str, on_line: Callable[[str], None]) -> None:
        beside = None
        if job.task == "time":
            beside = (*self._start("targets.sampler"), f"{inside}/{SAMPLES}", str(INTERVAL_SECONDS))
        argv = (*self._start("bench.worker"), f"{inside}/job.json", result)
        folders = (result,) if job.task == "segment" else ()
        wanted = RemoteJob(argv=argv, environment=self._environment(), beside=beside, folders=folders)
        ended = self._session.execute(inside, wanted, on_line)
        if ended.code:
            raise self._failure(job, ended.code, ended.stderr)

    def _failure(self, job: Job, code: int, stderr: str) -> EdgeLatupError:
        if "No space left on device" in stderr:
            return RemoteError(f"the disk of {self._shown} ran full", "free some there, or choose another folder with --remote-cache")
        found = failure(named(job), code, stderr)
        return type(found)(f"{self._session.host.name}: {found.message}", found.hint)

    def _bring(self, job: Job, inside: str) -> Job:
        """Copy what a job reads, and say it in that host's paths."""
        folder = Path(job.artifact)
        files = {f"artifacts/{folder.name}-{self._jobs}/{path.name}": path for path in sorted(folder.iterdir()) if path.is_file()}
        if job.batch is not None:
            files[f"{inside}/batch.npy"] = Path(job.batch)
        self._session.bring(files)
        cases = tuple(self._bring_case(Path(path), f"cases/{index:04d}") for index, path in enumerate(job.cases))
        return job.model_copy(
            update={
                "artifact": f"artifacts/{folder.name}-{self._jobs}", "cases": cases,
                "batch": None if job.batch is None else f"{inside}/batch.npy",
            }
        )  # fmt: skip

    def _bring_case(self, path: Path, below: str) -> str:
        """Copy one case, which never stays in the cache: it may be a patient's. The name it has there."""
        path = absolute(path)  # the case's name and the place of its label follow from the folders above
        found = case_files(path)
        anchor = path.parent.parent if path.is_file() and path.parent.name in MSD_LABELS else path.parent
        files = {f"{below}/{file.relative_to(anchor).as_posix()}": file for file in _files_of(found, anchor)}
        self._session.bring(files, private=True)
        return f"{below}/{path.relative_to(anchor).as_posix()}"

    def _start(self, module: str) -> tuple[str, ...]:
        return (self._session.probe.executable, "-c", START.format(module))

    def _environment(self) -> dict[str, str | None]:
        """What is set there, and with None what is unset: a limit of the instruction set would make rows "native" in name only."""
        paths = f"{self._session.work}/{RUNNER}:{self._session.work}/{SITE}"
        return {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"} | dict.fromkeys(VARIABLES)

    def _add_telemetry(self, out: Path, inside: str, samples: Path) -> None:
        row = read_record(TimingRow, out)
        self._session.fetch(f"{inside}/{SAMPLES}", samples)
        if row.timed_until is None or not samples.is_file():
            return
        window = Window(begin=row.timed_until - sum(row.samples_ms) / 1000, end=row.timed_until, median_ms=row.p50_ms)
        write_record(row.model_copy(update={"telemetry": summarise(read_samples(samples), window)}), out)

    def _describe(self) -> Described:
        argv = (*self._start("bench.remote_worker"), "host.json", json.dumps(PACKAGES))
        ended = self._session.execute("host", RemoteJob(argv=argv, environment=self._environment()), lambda _: None)
        if ended.code:
            last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise RemoteError(f"{self._session.host.python} on {self._shown} cannot run what was brought: {last}", ended.stderr)
        with tempfile.TemporaryDirectory(prefix="edge-latup-") as scratch:
            self._session.fetch("host.json", Path(scratch) / "host.json")
            return read_record(Described, Path(scratch) / "host.json")

    def _have_packages(self, runtimes: Sequence[RuntimeName]) -> None:
        """Refuse early what would fail late; bring wheels where a folder of them was named."""
        if elsewhere := sorted({name for name in runtimes if name not in RUNTIME_MODULES}):
            raise InputError(f"rows of {', '.join(elsewhere)} are not made on other hosts", f"choose {' or '.join(RUNTIME_MODULES)}")
        needed = [*NEEDED, *sorted({RUNTIME_MODULES[name] for name in runtimes})]
        missing = [name for name in needed if self._session.probe.modules.get(name) is None]
        if missing and self._session.host.wheels is not None:
            self._install(missing, self._session.host.wheels)
        elif missing:
            python = self._session.host.python
            raise RemoteError(
                f"{python} on {self._shown} lacks {', '.join(missing)}",
                f"there: {python} -m pip install {' '.join(missing)}\n"
                "or name a Python that has them: --python PATH; or bring wheels from a local folder: --wheels DIR",
            )

    def _install(self, missing: Sequence[str], folder: Path) -> None:
        """Put wheels of a local folder beside the runner, for this run alone."""
        wheels = {f"wheels/{path.name}": path for path in sorted(folder.expanduser().glob("*.whl"))}
        if not wheels:
            raise InputError(f"{folder} holds no wheel (*.whl)", f"fill it: pip download --dest {folder} {' '.join(missing)}")
        if self._session.probe.modules.get("pip") is None:
            raise RemoteError(f"{self._session.host.python} on {self._shown} has no pip to unpack wheels with", "install python3-pip there")
        self._session.bring(wheels)
        self._note(f"{self._session.host.name}: installing {', '.join(missing)} into the work folder")
        options = ("--no-index", "--find-links", "wheels", "--target", SITE, "--quiet", "--disable-pip-version-check", "--no-compile")
        argv = (self._session.probe.executable, "-m", "pip", "install", *options, *missing)
        ended = self._session.execute("wheels", RemoteJob(argv=argv, environment={"PIP_NO_CACHE_DIR": "1"}), lambda _: None)
        if ended.code:
            last = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ended.stderr.splitlines()[-1:]
            raise RemoteError(
                f"the wheels of {folder} do not install on {self._shown}: {' '.join(last)}",
                f"they must fit Python {self._session.probe.python} on {self._session.probe.machine}, with all they depend on",
            )


def _files_of(case: CaseFiles, anchor: Path) -> list[Path]:
    """Every file that reading the case opens."""
    named = [*(source.path for source in case.images.values()), *([case.label] if case.label else [])]
    # A .mhd header names its voxels' file, which lies beside it under the same stem.
    beside = [path for header in named if header.suffix.lower() == ".mhd" for path in header.parent.glob(f"{header.stem}.*")]
    described = [path for path in (anchor / "dataset.json",) if path.is_file() and next(iter(case.images.values())).channel is not None]
    return sorted({*named, *beside, *described})
