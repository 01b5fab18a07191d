"""What else used the processors: counted from /proc/stat, against this process's own time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_latup.targets.activity import LEAST_SECONDS, CpuTime, busy_with_others, cpu_time

LINUX = pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="the system has no /proc/stat")


def stat(root: Path, *lines: str) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc" / "stat").write_text("\n".join(("cpu  9 9 9 9 9 9 9 9 9 9", *lines, "intr 5", "")))
    return root


@LINUX
def test_work_is_all_but_idling_and_what_is_counted_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    #                                user nice system idle iowait irq softirq steal guest guest_nice
    root = stat(tmp_path, "cpu0 100 20 30 100000 5000 4 6 40 90 10", "cpu1 7777 0 0 0 0 0 0 0 0 0", "cpu2 200 0 0 0 0 0 0 0 0 0")
    assert cpu_time(root).machine == pytest.approx((100 + 20 + 30 + 4 + 6 + 40 + 200) / os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize("lines", [(), ("cpu99999 1 2 3",)])
def test_a_system_that_does_not_tell(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert cpu_time(stat(tmp_path, *lines)).machine is None
    assert cpu_time(tmp_path / "nowhere").machine is None


def moment(at: float, machine: float | None, own: float) -> CpuTime:
    return CpuTime(at=at, machine=machine, own=own)


@pytest.mark.parametrize(
    ("until", "others"),
    [
        (moment(20, 118, 16), 0.2),
        (moment(20, 116, 16), 0.0),
        (moment(20, 115.9, 16), 0.0),
        (moment(20, None, 16), None),
        (moment(10 + LEAST_SECONDS / 2, 100.5, 0.1), None),
    ],
)
def test_others_are_what_this_process_did_not_use(until: CpuTime, others: float | None) -> None:
    assert busy_with_others([(moment(10, 100, 0), until)]) == (None if others is None else pytest.approx(others))


BURN = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


@LINUX
def test_a_busy_neighbour_is_seen_and_own_work_is_not() -> None:
    since = cpu_time()
    subprocess.run([sys.executable, "-c", BURN.format(LEAST_SECONDS * 1.5)], check=True)
    own = busy_with_others([(since, cpu_time())])
    since = cpu_time()
    with subprocess.Popen([sys.executable, "-c", BURN.format(60)]) as neighbour:
        subprocess.run([sys.executable, "-c", f"import time; time.sleep({LEAST_SECONDS * 1.5})"], check=True)
        disturbed = busy_with_others([(since, cpu_time())])
        neighbour.kill()
    assert own is not None
    assert disturbed is not None
    # Whatever else runs here is in both; the neighbour takes a processor, or where others want it too, a share of one.
    assert disturbed > 0.4
