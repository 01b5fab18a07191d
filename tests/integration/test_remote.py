"""`edge-latup bench --host` against a real sshd on loopback: rows like local ones, refusals, lost connections, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Command, Done
from sshd import Sshd, make_key, marked, parent, serving, wait_for, wait_until_gone
from support import write_case
from tiny_models import pointwise_artifact, some_batch, tiny_spec

from edge_latup.artifact import Artifact, open_artifact, sha256_of
from edge_latup.bench import remote
from edge_latup.bench.drift import read_prediction
from edge_latup.bench.store import load_run
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.errors import RemoteError
from edge_latup.runtimes import open_session
from edge_latup.segmentation.engine import segment
from edge_latup.targets import remote_session
from edge_latup.targets.remote_host import RemoteHost, parse_host
from edge_latup.targets.remote_parts import Ended, RemoteJob
from edge_latup.targets.remote_session import RemoteSession

QUICK = ("--runs", 3, "--threads", 1)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, agent or configuration of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path / "client-home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr("edge_latup.bench.run.parity_input", lambda spec, size: some_batch(side=size[0]))


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    return pointwise_artifact(tmp_path / "tiny", (16, 16, 16))


def reach(sshd: Sshd, cache: Path, *more: object) -> list[object]:
    """Options that reach the server with what it knows."""
    return [
        "--host", sshd.address, "--identity", sshd.user_key, "--known-hosts", sshd.known_hosts, "--python", sys.executable,
        "--remote-cache", cache, *more,
    ]  # fmt: skip


def host_of(sshd: Sshd, cache: Path, **changes: Any) -> RemoteHost:
    fields = {"identity": sshd.user_key, "known_hosts": sshd.known_hosts, "python": sys.executable, "cache": str(cache)}
    return parse_host(sshd.address).model_copy(update=fields | changes)


def silent(line: str) -> None:
    return


def test_a_remote_row_is_like_a_local_one(cli: Command, sshd: Sshd, tiny: Artifact, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = cli("--json", "bench", tiny.folder, "--out", tmp_path / "remote", *QUICK, *reach(sshd, cache))
    assert done.code == 0, done.err
    assert cli("bench", tiny.folder, "--out", tmp_path / "local", *QUICK).code == 0
    remote, local = load_run(tmp_path / "remote"), load_run(tmp_path / "local")
    row, own = remote.rows["tiny"], local.rows["tiny"]
    assert len(row.samples_ms) == 3
    same = {
        "artifact",
        "artifact_sha256",
        "format",
        "runtime",
        "runtime_version",
        "precision",
        "executed_float",
        "executed_kernels",
        "host",
    }
    assert row.model_dump(include=same) == own.model_dump(include=same)
    assert remote.record.host == local.record.host
    assert [path.name for path in cache.iterdir()] == ["blobs"]
    assert wait_until_gone() == []


def test_label_maps_are_those_made_here_and_no_case_stays_there(cli: Command, sshd: Sshd, tmp_path: Path) -> None:
    artifacts = [pointwise_artifact(tmp_path / name, (16, 16, 16)).folder for name in ("one", "two")]
    case = write_case(tmp_path / "cases" / "patient-7")
    told = cli("bench", *artifacts, "--cases", case, "--out", tmp_path / "remote", *QUICK, *reach(sshd, tmp_path / "cache"))
    assert told.code == 0, told.err
    run, spec = load_run(tmp_path / "remote"), tiny_spec(network=None)
    assert run.drift["two"].cases[0].regions["WT"].agreement == 1, "they are the same network"
    made = read_case(find_cases(case)[0], spec.modalities)
    with open_session(open_artifact(artifacts[0])) as session:
        expected = segment(session, spec, made).label
    assert np.array_equal(read_prediction(tmp_path / "remote" / "labels" / "one" / "patient-7.nii.gz", made), expected)
    kept = {path.name for path in (tmp_path / "cache" / "blobs").iterdir()}
    assert kept.isdisjoint(sha256_of(path) for path in case.iterdir())
    assert "one: patient-7" in told.err


# Who is at the other end.


def refused(done: Done, message: str) -> str:
    """The hint of a refusal; nobody was let in, so nothing was begun."""
    assert done.code == 3, done.err
    assert message in done.err
    return done.err.partition("hint: ")[2]


def test_an_unknown_host_key_is_refused_with_the_command_that_adds_it(cli: Command, sshd: Sshd, tiny: Artifact, tmp_path: Path) -> None:
    trusted = tmp_path / "client-home" / ".ssh" / "known_hosts"
    trusted.parent.mkdir(parents=True)
    options = ["--host", sshd.address, "--identity", sshd.user_key, "--python", sys.executable, "--remote-cache", tmp_path / "cache"]
    hint = refused(cli("bench", tiny.folder, "--out", tmp_path / "out", *QUICK, *options), "is not known: SHA256:")
    shown = subprocess.run(["ssh-keygen", "-lf", sshd.folder / "host_key.pub"], capture_output=True, text=True, check=True).stdout.split()[
        1
    ]
    assert f"not known: {shown}" in cli("bench", tiny.folder, "--out", tmp_path / "out", *QUICK, *options).err
    assert not (tmp_path / "cache").exists()
    assert not trusted.exists(), "nothing is added behind the user's back"
    command = hint.partition("if they are the same: ")[2].splitlines()[0]
    subprocess.run(command, shell=True, check=True)
    assert trusted.read_text() == sshd.known_hosts.read_text()
    with RemoteSession(host_of(sshd, tmp_path / "cache", known_hosts=trusted), silent):
        pass


def test_a_changed_host_key_is_refused_otherwise(cli: Command, sshd: Sshd, tiny: Artifact, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other-host").with_suffix(".pub").read_text().split()[:2]
    wrong = tmp_path / "known"
    wrong.write_text(f"[127.0.0.1]:{sshd.port} {' '.join(other)}\n")
    done = cli("bench", tiny.folder, "--out", tmp_path / "out", *QUICK, *reach(sshd, tmp_path / "cache", "--known-hosts", wrong))
    hint = refused(done, "has changed: it is SHA256:")
    assert "somebody may be in between" in hint
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {wrong}" in hint
    assert ">>" not in hint, "a changed key is not added in passing"


def test_no_configuration_can_switch_the_check_off(sshd: Sshd, tmp_path: Path) -> None:
    folder = tmp_path / "client-home" / ".ssh"
    folder.mkdir(parents=True)
    (folder / "config").write_text("Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n")
    with pytest.raises(RemoteError, match="is not known: SHA256"), RemoteSession(host_of(sshd, tmp_path, known_hosts=None), silent):
        pass


def test_a_key_that_is_not_let_in(cli: Command, sshd: Sshd, tiny: Artifact, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    done = cli("bench", tiny.folder, "--out", tmp_path / "out", *QUICK, *reach(sshd, tmp_path / "cache", "--identity", stranger))
    assert f"ssh-copy-id -i {stranger}.pub" in refused(done, "refused every key")


def test_a_key_from_the_agent(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        wait_for(socket.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", sshd.user_key], check=True)
        with RemoteSession(host_of(sshd, tmp_path / "cache", identity=None), silent) as session:
            assert session.probe.executable == sys.executable
    finally:
        agent.kill()
        agent.wait()


def test_secrets_are_neither_asked_for_nor_told(
    cli: Command, sshd: Sshd, tiny: Artifact, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    locked = make_key(tmp_path / "locked", passphrase="correct-horse-battery")
    done = cli("bench", tiny.folder, "--out", tmp_path / "no", *QUICK, *reach(sshd, tmp_path / "cache", "--identity", locked))
    assert (done.code, "needs a passphrase, which is never asked for" in done.err, f"ssh-add {locked}" in done.err) == (2, True, True)
    typed = cli("bench", tiny.folder, "--out", tmp_path / "no", "--host", "me:hunter2@board")
    assert (typed.code, "never a password" in typed.err) == (2, True)
    well = cli("bench", tiny.folder, "--out", tmp_path / "yes", *QUICK, *reach(sshd, tmp_path / "cache"))
    assert well.code == 0, well.err
    written = "".join(path.read_text(errors="replace") for path in (tmp_path / "yes").rglob("*") if path.is_file())
    everything = "".join([caplog.text, written, *(text for one in (done, typed, well) for text in (one.out, one.err))])
    assert str(sshd.user_key) in everything, "the command that was typed is in run.json"
    private = [line for key in (locked, sshd.user_key) for line in key.read_text().splitlines()[1:-1]]
    for secret in ("correct-horse-battery", "hunter2", *private):
        assert secret not in everything


# What is missing there.


def test_no_such_python(cli: Command, sshd: Sshd, tiny: Artifact, tmp_path: Path) -> None:
    done = cli(
        "bench", tiny.folder, "--out", tmp_path / "out", *QUICK, *reach(sshd, tmp_path / "cache", "--python", "/nonexistent/python3")
    )
    assert "--python PATH" in refused(done, "there is no /nonexistent/python3 on ")
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the standard library and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


def test_a_python_that_lacks_packages(cli: Command, sshd: Sshd, tiny: Artifact, bare_python: Path, tmp_path: Path) -> None:
    done = cli("bench", tiny.folder, "--out", tmp_path / "out", *QUICK, *reach(sshd, tmp_path / "cache", "--python", bare_python))
    hint = refused(done, "lacks numpy, pydantic, nibabel, openvino")
    assert f"{bare_python} -m pip install numpy pydantic nibabel openvino" in hint
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["blobs"]
    assert wait_until_gone() == []


def test_wheels_are_brought_for_what_is_missing(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "wheels" / "edge_latup_test_wheel-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "edge_latup_test_wheel-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("edge_latup_test_wheel.py", "brought = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: edge-latup-test-wheel\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr(remote, "NEEDED", ("numpy", "edge_latup_test_wheel"))
    with RemoteSession(host_of(sshd, tmp_path / "cache", wheels=wheel.parent), silent) as session:
        workers = remote.RemoteWorkers(session, silent, ["openvino"])
        code = "import edge_latup_test_wheel as w; print(w.brought, w.__file__)"
        job = RemoteJob(argv=(session.probe.executable, "-c", code), environment=workers._environment())
        lines: list[str] = []
        assert session.execute("look", job, lines.append).code == 0
        assert lines == [f"42 {session.work}/site/edge_latup_test_wheel.py"]
    assert not Path(session.work).exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


def test_a_full_disk_is_told_before_anything_is_copied(cli: Command, sshd: Sshd, tiny: Artifact, small_disk: Path, tmp_path: Path) -> None:
    done = cli("bench", tiny.folder, "--out", tmp_path / "out", *QUICK, *reach(sshd, small_disk / "cache"))
    assert "--remote-cache" in refused(done, "not enough room on the disk")
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []
    assert wait_until_gone() == []


def test_a_disk_that_fills_up_while_something_is_copied(
    sshd: Sshd, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_session, "SPARE_DISK", -(1 << 30))
    big = tmp_path / "big"
    big.write_bytes(os.urandom(6 << 20))
    with (
        pytest.raises(RemoteError, match="not enough room on the disk"),
        RemoteSession(host_of(sshd, small_disk / "cache"), silent) as session,
    ):
        session.bring({"big": big})
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


# What is copied.


def test_a_copy_goes_on_where_it_was_cut(sshd: Sshd, tmp_path: Path) -> None:
    big, blobs, told = tmp_path / "big", tmp_path / "cache" / "blobs", list[str]()
    big.write_bytes(os.urandom(3_000_000))
    blobs.mkdir(parents=True)
    (blobs / f"{sha256_of(big)}.part").write_bytes(big.read_bytes()[:2_000_000])
    with RemoteSession(host_of(sshd, tmp_path / "cache"), told.append) as session:
        session.bring({"there": big})
        assert (Path(session.work) / "there").read_bytes() == big.read_bytes()
    assert "127.0.0.1: copying big (3.0 MB, from 2.0 MB)" in told
    told.clear()
    with RemoteSession(host_of(sshd, tmp_path / "cache"), told.append) as session:
        session.bring({"there": big})
    assert told == [], "what is there is not copied again"


def test_a_connection_that_is_cut_while_copying(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big, told, real = tmp_path / "big", list[str](), remote_session._pieces
    big.write_bytes(os.urandom(8_000_000))
    cuts = iter([4])

    def pieces(path: Path, offset: int) -> Iterator[bytes]:
        cut_at = next(cuts, None)
        for index, piece in enumerate(real(path, offset)):
            if index == cut_at:
                time.sleep(0.3)
                assert sshd.cut()
            yield piece

    monkeypatch.setattr(remote_session, "_pieces", pieces)
    with RemoteSession(host_of(sshd, tmp_path / "cache"), told.append) as session:
        session.bring({"there": big})
        assert sha256_of(Path(session.work) / "there") == sha256_of(big)
    assert any("connecting again" in line for line in told)
    assert any(", from " in line for line in told)


def test_what_arrives_altered_is_refused(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    monkeypatch.setattr(remote_session, "_pieces", lambda path, offset: iter([b"Weights"]))
    with (
        pytest.raises(RemoteError, match="is not the file with the SHA-256"),
        RemoteSession(host_of(sshd, tmp_path / "cache"), silent) as session,
    ):
        session.bring({"there": source})
    assert not (tmp_path / "cache").exists(), "no part of it is kept"


def test_what_was_altered_there_is_copied_again(sshd: Sshd, tmp_path: Path) -> None:
    source, blob = tmp_path / "source", tmp_path / "cache" / "blobs"
    source.write_bytes(b"weights")
    with RemoteSession(host_of(sshd, tmp_path / "cache"), silent) as session:
        session.bring({"there": source})
    (blob / sha256_of(source)).write_bytes(b"Weights")
    with RemoteSession(host_of(sshd, tmp_path / "cache"), silent) as session:
        session.bring({"there": source})
        assert (Path(session.work) / "there").read_bytes() == b"weights"


def test_nothing_at_all_is_left_where_no_cache_is_wanted(cli: Command, sshd: Sshd, tiny: Artifact, tmp_path: Path) -> None:
    done = cli("bench", tiny.folder, "--out", tmp_path / "out", *QUICK, *reach(sshd, tmp_path / "cache", "--no-cache"))
    assert done.code == 0, done.err
    assert not (tmp_path / "cache").exists()


# Connections that end.

COUNT = "import time\nfor i in range(20): print(i, flush=True); time.sleep(0.1)"


def test_a_job_is_waited_for_after_a_cut(sshd: Sshd, tmp_path: Path) -> None:
    lines: list[str] = []
    told: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line == "5":
            assert sshd.cut()

    with RemoteSession(host_of(sshd, tmp_path / "cache"), told.append) as session:
        job = RemoteJob(argv=(session.probe.executable, "-c", COUNT), environment={})
        assert session.execute("count", job, on_line).code == 0
    assert lines == [str(i) for i in range(20)], "each line once, none lost"
    assert any("connecting again" in line for line in told)
    assert not Path(session.work).exists()
    assert wait_until_gone() == []


def test_a_row_survives_a_cut(cli: Command, sshd: Sshd, tiny: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, cuts = remote_session.RemoteSession.execute, list[int]()

    def cut_soon(self: RemoteSession, name: str, job: RemoteJob, on_line: Callable[[str], None]) -> Ended:
        if name == "job-001":
            threading.Timer(0.6, lambda: cuts.append(sshd.cut())).start()
        return real(self, name, job, on_line)

    monkeypatch.setattr(remote_session.RemoteSession, "execute", cut_soon)
    slow = ("--runs", 10**6, "--seconds", 1.5, "--threads", 1)
    done = cli("bench", tiny.folder, "--out", tmp_path / "out", *slow, *reach(sshd, tmp_path / "cache"))
    assert done.code == 0, done.err
    assert cuts
    assert cuts[0] > 0
    assert "connecting again" in done.err
    assert len(load_run(tmp_path / "out").rows["tiny"].samples_ms) > 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["blobs"]
    assert wait_until_gone() == []


def test_a_full_disk_here_is_no_lost_connection(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(write: object, piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    told: list[str] = []
    monkeypatch.setattr(remote_session, "_write", full)

    def fetch() -> None:
        with RemoteSession(host_of(sshd, tmp_path / "cache"), told.append) as session:
            session.bring({"there": sshd.known_hosts})
            session.fetch("there", tmp_path / "here")

    with pytest.raises(OSError, match="No space left"):
        fetch()
    assert not any("connecting again" in line for line in told)
    assert not (tmp_path / "here").exists()


SLEEPERS = (
    "import subprocess, sys, time; subprocess.Popen(['sleep', '600'], start_new_session=True); print('up', flush=True); time.sleep(600)"
)
"""A job with a child that left its session."""


def sleep_there(host: RemoteHost, lease: float, on_line: Callable[[str], None], work: list[Path]) -> None:
    """A session with a job that does not end."""
    with RemoteSession(host, silent, lease=lease) as session:
        work.append(Path(session.work))
        job = RemoteJob(argv=(session.probe.executable, "-c", SLEEPERS), environment={}, beside=("sleep", "600"))
        session.execute("sleep", job, on_line)


def test_a_lost_host_fails_clearly_and_ends_what_ran_there(tmp_path: Path) -> None:
    started, work = time.monotonic(), list[Path]()
    with serving(tmp_path / "sshd") as server:
        host = host_of(server, tmp_path / "cache")
        with pytest.raises(RemoteError, match=r"did not come back within 2 s") as caught:
            sleep_there(host, 2, lambda _: server.stop(), work)
    assert "run the same command again" in caught.value.hint
    assert time.monotonic() - started < 20
    assert wait_until_gone() == [], "the supervisor, the job, its sampler and the child that left its session"
    assert not work[0].exists()


def test_coming_back_too_late_is_told(sshd: Sshd, tmp_path: Path) -> None:
    def come_back_late() -> None:
        with RemoteSession(host_of(sshd, tmp_path / "cache"), silent, lease=1) as session:
            session.link._wait(session.link._disconnect())
            assert wait_until_gone() == []
            session.bring({"there": sshd.known_hosts})

    with pytest.raises(RemoteError, match="has ended: nothing was heard for the length of its lease"):
        come_back_late()


def test_an_interrupted_run_leaves_nothing(sshd: Sshd, tmp_path: Path) -> None:
    work: list[Path] = []
    # What a shell starts in the background ignores SIGINT, and Python then leaves it so: the tests may run there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sleep_there(host_of(sshd, tmp_path / "cache"), 60, lambda _: os.kill(os.getpid(), signal.SIGINT), work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert wait_until_gone(5) == []
    assert not work[0].exists()


def test_a_killed_supervisor_is_told_and_swept_up(sshd: Sshd, tmp_path: Path) -> None:
    work: list[Path] = []

    def kill_supervisor(line: str) -> None:
        # The one that carries no mark and was left to init by those who forked it.
        own = [pid for pid in marked() if b"EDGE_LATUP_RUN=" not in Path(f"/proc/{pid}/environ").read_bytes() and parent(pid) == 1]
        os.kill(own[0], signal.SIGKILL)

    with pytest.raises(RemoteError, match="or it was killed"):
        sleep_there(host_of(sshd, tmp_path / "cache"), 60, kill_supervisor, work)
    assert wait_until_gone() == []
    assert not work[0].exists()


# Several hosts.


def fleet_file(sshd: Sshd, path: Path, **pythons: str) -> Path:
    user, _, rest = sshd.address.partition("@")
    common = f'address = "127.0.0.1"\nuser = "{user}"\nport = {rest.rpartition(":")[2]}\nidentity = "{sshd.user_key}"\n'
    common += f'known_hosts = "{sshd.known_hosts}"\n'
    hosts = (
        f'[[host]]\nname = "{name}"\npython = "{python}"\ncache = "{path.parent}/{name}"\n{common}' for name, python in pythons.items()
    )
    path.write_text("\n".join(hosts))
    return path


def test_a_fleet_keeps_the_rows_of_the_hosts_that_did_not_fail(cli: Command, sshd: Sshd, tiny: Artifact, tmp_path: Path) -> None:
    fleet = fleet_file(sshd, tmp_path / "fleet.toml", left=sys.executable, broken="/nonexistent", right=sys.executable)
    done = cli("--json", "bench", tiny.folder, "--fleet", fleet, "--out", tmp_path / "out", *QUICK)
    assert done.code == 3
    assert "1 of 3 hosts failed; broken: there is no /nonexistent on" in done.err
    assert [row["host"] for row in done.data["rows"]] == ["left", "right"]
    assert list(done.data["failed"]) == ["broken"]
    assert {"table.csv", "table.md", "table.json", "fleet.json", "hosts"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert len(load_run(tmp_path / "out" / "hosts" / "left").rows["tiny"].samples_ms) == 3
    assert "| left | tiny |" in (tmp_path / "out" / "table.md").read_text()
    again = cli("bench", tiny.folder, "--fleet", fleet, "--out", tmp_path / "out", *QUICK)
    assert (again.code, "already holds records" in again.err) == (2, True)
    assert wait_until_gone() == []
