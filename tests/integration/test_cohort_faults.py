"""A cohort run that is killed, whose disk is full or whose worker dies loses nothing and leaves no broken file behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Command
from small_cohort import NAMES, expected_names, outputs, write_small_cohort
from tiny_models import pointwise_artifact

# Overlapping by all but one voxel, so that a small case takes some tenths of a second.
SETTINGS = ("--policy", "sliding-window", "--window", "8", "--overlap", "0.87", "--threads", "1")
DEADLINE = 240.0


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Cases, a model, and what an undisturbed run of the command made of them in how many seconds of work."""

    model: Path
    cases: Path
    expected: dict[str, bytes]
    seconds: float

    def command(self, out: Path) -> list[str]:
        return [sys.executable, "-m", "edge_latup", *map(str, self.arguments(out))]

    def arguments(self, out: Path) -> list[object]:
        return ["--quiet", "segment", self.model, self.cases, "--out", out, *SETTINGS]


def wait_for(condition: Any, what: str) -> None:
    limit = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < limit, f"{what} did not come"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("cohort")
    model = pointwise_artifact(folder / "model").folder
    bare = Cohort(model=model, cases=write_small_cohort(folder / "cases"), expected={}, seconds=0)
    running = subprocess.Popen(bare.command(folder / "out"), cwd=folder)
    wait_for((folder / "out").is_dir, "the output folder")
    began = time.monotonic()
    assert running.wait(DEADLINE) == 0
    seconds = time.monotonic() - began
    assert list(outputs(folder / "out")) == expected_names()
    return Cohort(model=model, cases=bare.cases, expected=outputs(folder / "out"), seconds=seconds)


def killed_after(cohort: Cohort, out: Path, share: float) -> bool:
    """Start the command, kill it after `share` of its work; whether it was still running then.

    The work is counted in finished cases, since a busy machine's speed changes from run to run; only the moment within a
    case is a time.
    """
    cases = len(NAMES)
    finished, part = divmod(share * cases, 1)
    running = subprocess.Popen(cohort.command(out), cwd=out.parent)
    wait_for(
        lambda: (out.is_dir() and sum(path.suffix == ".json" for path in out.iterdir()) >= finished) or running.poll() is not None,
        f"{finished:.0f} finished cases",
    )
    time.sleep(part * cohort.seconds / cases)
    running.kill()
    return running.wait(DEADLINE) == -signal.SIGKILL


def check_kills(cohort: Cohort, folder: Path, cli: Command, moments: int, seed: int) -> None:
    """Kill at random moments, one in each of `moments` equal parts of the run, and resume to the end each time."""
    shares = (np.arange(moments) + np.random.default_rng(seed).random(moments)) / moments
    hits = 0
    for index, share in enumerate(shares):
        out = folder / f"out-{index}"
        hits += killed_after(cohort, out, float(share))
        for name, content in outputs(out).items():
            assert name.startswith(".") or content == cohort.expected[name], f"{name} is broken after a kill at {share:.2f} of the run"
        done = cli(*cohort.arguments(out))
        assert done.code == 0, done.err
        assert outputs(out) == cohort.expected, f"killed at {share:.2f} of the run"
    assert hits >= moments / 2, "most kills found the run still going"


def test_a_killed_run_is_resumed_to_the_same_bytes(cohort: Cohort, tmp_path: Path, cli: Command) -> None:
    check_kills(cohort, tmp_path, cli, moments=3, seed=0)


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_is_resumed_to_the_same_bytes(cohort: Cohort, tmp_path: Path, cli: Command) -> None:
    check_kills(cohort, tmp_path, cli, moments=20, seed=1)


@pytest.mark.slow
def test_a_run_killed_again_and_again_comes_to_its_end(cohort: Cohort, tmp_path: Path, cli: Command) -> None:
    for _ in range(2):
        killed_after(cohort, tmp_path / "out", 0.4)
    assert cli(*cohort.arguments(tmp_path / "out")).code == 0
    assert outputs(tmp_path / "out") == cohort.expected


def mount(*arguments: object) -> bool:
    try:
        return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 KiB in memory: room for two or three cases."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=24k", "tmpfs", folder):
        pytest.skip("mounting a small file system takes root's rights, and a machine that permits it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_the_run_and_loses_nothing(cohort: Cohort, small_disk: Path, cli: Command) -> None:
    out = small_disk / "out"
    done = cli(*cohort.arguments(out))
    assert done.code == 2
    assert "the disk is full" in done.err
    kept = outputs(out)
    assert 0 < len(kept) < len(cohort.expected)
    assert len(kept) % 2 == 0, "label maps and sidecars come in pairs"
    assert all(content == cohort.expected[name] for name, content in kept.items())
    assert mount("-o", "remount,size=1m", small_disk)
    assert cli(*cohort.arguments(out)).code == 0
    assert outputs(out) == cohort.expected


def test_files_that_cannot_be_written_whole_are_not_left(cohort: Cohort, tmp_path: Path) -> None:
    """Without root's rights: the system refuses files of more than 300 bytes, in the middle of writing them."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

    done = subprocess.run(
        cohort.command(tmp_path / "out"), cwd=tmp_path, capture_output=True, text=True, check=False, preexec_fn=limit, timeout=DEADLINE
    )
    assert done.returncode == 2, done.stderr
    assert "6 of 6 cases failed" in done.stderr
    assert outputs(tmp_path / "out") == {}


@contextmanager
def local_cluster() -> Iterator[Any]:
    """Two worker processes of one thread each; a worker that dies is replaced."""
    import distributed

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with local_cluster() as cluster:
        yield cluster


def kill_a_worker(cluster: Any, out: Path) -> threading.Thread:
    """From another thread: SIGKILL one worker once the first label map is there."""

    def kill() -> None:
        wait_for(lambda: out.is_dir() and any(path.suffix == ".json" for path in out.iterdir()), "the first label map")
        os.kill(cluster.workers[0].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_cluster_writes_the_same_bytes(cohort: Cohort, tmp_path: Path, cli: Command, cluster: Any) -> None:
    out = tmp_path / "out"
    arguments = [*cohort.arguments(out)[1:], "--scheduler", cluster.scheduler_address]
    done = cli("--json", *arguments)
    assert done.code == 0, done.err
    assert [case["status"] for case in done.data["cases"]] == ["written"] * 6
    assert outputs(out) == cohort.expected
    (out / "case-b.nii.gz").unlink()
    (cohort.cases / "case-c" / "case-c_t2.nii.gz").rename(tmp_path / "aside")
    try:
        done = cli("--json", *arguments)
    finally:
        (tmp_path / "aside").rename(cohort.cases / "case-c" / "case-c_t2.nii.gz")
    assert [case["status"] for case in done.data["cases"]] == ["verified", "written", "verified", "verified", "verified"]
    assert "no t2 volume" in done.data["failures"][0]["message"]
    assert outputs(out) == cohort.expected


def test_a_worker_that_dies_loses_nothing(cohort: Cohort, tmp_path: Path, cli: Command, cluster: Any) -> None:
    out = tmp_path / "out"
    killing = kill_a_worker(cluster, out)
    done = cli(*cohort.arguments(out), "--scheduler", cluster.scheduler_address)
    killing.join()
    assert done.code == 0, done.err
    assert outputs(out) == cohort.expected


@pytest.mark.slow
def test_a_case_that_the_cluster_gives_up_is_a_failure_of_that_case(cohort: Cohort, tmp_path: Path, cli: Command) -> None:
    import dask

    out = tmp_path / "out"
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), local_cluster() as cluster:
        killing = kill_a_worker(cluster, out)
        done = cli("--json", *cohort.arguments(out)[1:], "--scheduler", cluster.scheduler_address)
        killing.join()
    assert done.code == 2
    assert {failure["kind"] for failure in done.data["failures"]} == {"KilledWorker"}
    assert all("the cluster lost this case" in failure["message"] for failure in done.data["failures"])
    assert "Traceback" not in done.err
    assert len(done.data["cases"]) + len(done.data["failures"]) == 6
    kept = outputs(out)
    assert kept
    assert all(content == cohort.expected[name] for name, content in kept.items())
    assert cli(*cohort.arguments(out)).code == 0
    assert outputs(out) == cohort.expected
