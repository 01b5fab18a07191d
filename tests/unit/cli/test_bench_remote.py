"""Options of `bench --host` and `--fleet` that contradict each other or do nothing are refused before anything is begun."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import sample_run
from command import Command
from tiny_models import pointwise_artifact

from edge_latup.bench import fleet
from edge_latup.cli.bench import parse_entry
from edge_latup.targets.remote_host import RemoteHost
from edge_latup.targets.remote_parts import Probe


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["--host", "a", "--fleet", "f.toml"], "both --host and --fleet", "name the hosts in the fleet file"),
        (["--python", "python3.11"], "only --host takes --python", "add --host user@board"),
        (["--fleet", "f.toml", "--identity", "key"], "only --host takes --identity", "in a fleet file, name them for each host"),
        (["--no-cache"], "only --host and --fleet take --no-cache", "add --host user@board"),
        (["--host", "a", "--sweep"], "--sweep does not take --host or --fleet", "bench --help"),
        (["--fleet", "none.toml"], "none.toml cannot be read", "fleet.toml"),
        (["--host", "me:hunter2@board"], "holds a colon before the @", "never a password"),
    ],
)
def test_options_that_do_not_fit(cli: Command, options: list[str], message: str, hint: str, tmp_path: Path) -> None:
    artifact = pointwise_artifact(tmp_path / "tiny", (16, 16, 16)).folder
    done = cli("bench", artifact, "--out", tmp_path / "out", *options)
    assert done.code == 2, done.err
    assert message in done.err
    assert hint in done.err
    assert "hunter2" not in done.err
    assert not (tmp_path / "out").exists()


def test_the_package_that_is_missing_is_named(cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_latup.targets.ssh.installed", lambda name: False)
    artifact = pointwise_artifact(tmp_path / "tiny", (16, 16, 16)).folder
    done = cli("bench", artifact, "--out", tmp_path / "out", "--host", "board")
    assert (done.code, "in edge-latup's folder: pip install -c constraints.txt '.[remote]'" in done.err) == (3, True)


@pytest.mark.parametrize(
    ("machine", "modules", "entry", "runtime"),
    [
        ("x86_64", ("openvino", "onnxruntime"), "", "openvino"), ("aarch64", ("openvino", "onnxruntime"), "", "onnxruntime"),
        ("aarch64", ("openvino",), "", "openvino"), ("aarch64", ("openvino", "onnxruntime"), "@openvino", "openvino"),
    ],
)  # fmt: skip
def test_a_host_takes_the_runtime_that_suits_its_processor(
    tmp_path: Path, machine: str, modules: tuple[str, ...], entry: str, runtime: str
) -> None:
    artifact = pointwise_artifact(tmp_path / "pointwise")
    probe = Probe(
        python="3.11", executable="python3", machine=machine, cores=4, free_disk=1, free_memory=1, cache="~",
        modules={name: "1" if name in modules else None for name in ("openvino", "onnxruntime")},
    )  # fmt: skip
    session = SimpleNamespace(probe=probe, host=RemoteHost(name="board", address="board"))
    (found,) = fleet._suited((parse_entry(f"{artifact.folder}{entry}", here=False),), session)  # type: ignore[arg-type]
    assert found.runtime == runtime


def test_a_fleet_keeps_what_succeeded_whatever_happens_on_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(plan: object, host: RemoteHost, out: Path, note: object, **options: object) -> None:
        if host.name == "bad":
            raise ValueError("boom")
        sample_run.write_run(out)

    monkeypatch.setattr(fleet, "run_on_host", run)
    hosts = [RemoteHost(name=name, address=name) for name in ("good", "bad")]
    plan = SimpleNamespace(command="edge-latup bench")
    made = fleet.run_fleet(plan, hosts, tmp_path / "out", lambda text: None)  # type: ignore[arg-type]
    assert list(made.runs) == ["good"]
    assert [host.error for host in made.record.hosts] == [None, "ValueError: boom"]


def test_an_interrupt_ends_a_fleet_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after the last host: a wrong artifact is noticed after a minute, and a run may take an hour."""
    never = threading.Event()

    def run_on_host(plan: object, host: RemoteHost, *arguments: object, **options: object) -> None:
        if host.name == "one":  # a second one might come when the test is over
            # A signal, as Ctrl-C sends it: interrupt_main() does not wake a thread that waits for another.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        never.wait(60)

    monkeypatch.setattr(fleet, "run_on_host", run_on_host)
    hosts = [RemoteHost(name=name, address="127.0.0.1") for name in ("one", "two")]
    began = time.monotonic()
    # A shell starts what runs in the background with interrupts ignored, the tests too.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fleet.run_fleet(SimpleNamespace(command="x"), hosts, tmp_path / "out", lambda text: None)  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGINT, usual)
    assert time.monotonic() - began < 20
    never.set()


def test_a_cache_with_a_space_is_refused_with_a_sentence(cli: Command, tmp_path: Path) -> None:
    artifact = pointwise_artifact(tmp_path / "pointwise")
    done = cli("bench", artifact.folder, "--host", "user@board", "--remote-cache", "/mnt/my disk", "--out", tmp_path / "out")
    assert (done.code, "--host user@board with these options: " in done.err) == (2, True), done.err
