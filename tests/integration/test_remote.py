"""`edge-latup bench --host` against a real sshd on loopback: rows like local ones, refusals, lost connections, and nothing left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Command
from sshd import Sshd, serving, wait_until_gone
from tiny_models import pointwise_artifact

from edge_latup.artifact import Artifact
from edge_latup.bench.store import load_run

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


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    return pointwise_artifact(tmp_path / "tiny", (16, 16, 16))


def reach(sshd: Sshd, cache: Path, *more: object) -> list[object]:
    """Options that reach the server with what it knows."""
    return [
        "--host", sshd.address, "--identity", sshd.user_key, "--known-hosts", sshd.known_hosts, "--python", sys.executable,
        "--remote-cache", cache, *more,
    ]  # fmt: skip


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
