"""`edge-latup targets` names the targets, shows one with its sources, and probes this host into a file that loads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import Command

from edge_latup.targets import probe as module
from edge_latup.targets.bandwidth import Copy
from edge_latup.targets.host import describe_host
from edge_latup.targets.host_state import HostState
from edge_latup.targets.profile import Profile, known_targets, load_profile
from edge_latup.targets.rates import Rate


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Profile:
    """What a probe finds, without measuring it."""
    state = HostState(system="Linux", python="3.11", temperatures_c={"cpu": 40.0}, load_average=0.0)
    rate = Rate(precision="fp32", executed="f32", gmacs=55.5, shape=(8, 8, 3, 8), threads=2)
    copy = Copy(gb_s=12.5, buffer_bytes=2**27, threads=2, runs=3, beyond_cache=True)
    found = module.profile_of(describe_host(), state, [rate], copy, quick=True)
    monkeypatch.setattr(module, "probe", lambda *, quick: found)
    return found


def test_all_targets_in_one_table(cli: Command) -> None:
    done = cli("targets")
    assert (done.code, done.err) == (0, "")
    assert all(f" {name} " in done.out for name in known_targets())
    assert "not measured" in done.out


@pytest.mark.parametrize("arguments", [("targets", "--json"), ("--json", "targets")])
def test_all_targets_as_json(cli: Command, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert [found["name"] for found in done.data["targets"]] == list(known_targets())
    assert [Profile.model_validate(found) for found in done.data["targets"]] == [load_profile(name) for name in known_targets()]


def test_one_target_with_sources_and_refusals(cli: Command) -> None:
    done = cli("targets", "show", "jetson-orin-nx-16gb")
    assert done.code == 0
    for told in (
        "19,218.4",
        "calculated",
        "MAXN_SUPER",
        "JetPack 6.2",
        "2-D",
        "https://developer.nvidia.com/downloads/jetson-orin-nx-module-series-data-sheet",
    ):
        assert told in done.out
    assert cli("targets", "--json", "show", "tesla-t4").data["compute_capability"] == "7.5"


def test_an_unknown_target_names_the_known_ones(cli: Command) -> None:
    done = cli("targets", "show", "tesla-t44")
    assert (done.code, done.out) == (2, "")
    assert "tesla-t44" in done.err
    assert "tesla-t4," in done.err


def test_probe_writes_a_profile_that_shows(cli: Command, measured: Profile, tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    done = cli("targets", "probe", "--quick", "--out", path)
    assert done.code == 0
    assert "55.5" in done.out
    assert "measured" in done.out
    assert load_profile(str(path)) == measured
    shown = cli("targets", "show", path)
    assert shown.code == 0
    assert "cpu 40.0" in shown.out


def test_probe_without_out_writes_nothing(cli: Command, measured: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("targets", "--json", "probe")
    assert done.code == 0
    data: dict[str, Any] = done.data
    assert data.pop("file") is None
    assert Profile.model_validate(data) == measured
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "told"), [("here.json", "does not end in .toml"), ("none/here.toml", "is not a folder"), ("old.toml", "exists")]
)
def test_a_bad_out_is_refused_before_anything_is_measured(
    cli: Command, name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.toml").write_text("mine")
    monkeypatch.setattr(module, "probe", lambda **_: pytest.fail("it was measured"))
    done = cli("targets", "probe", "--out", tmp_path / name)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert (tmp_path / "old.toml").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["old.toml"]
