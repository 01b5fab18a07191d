"""Options of `bench --host` and `--fleet` that contradict each other or do nothing are refused before anything is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Command
from tiny_models import pointwise_artifact


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
    assert (done.code, "pip install 'edge-latup[remote]'" in done.err) == (3, True)
