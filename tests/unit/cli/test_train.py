"""`edge-latup train` leaves a checkpoint, resumes, and refuses what it cannot train before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import tree, write_case
from tiny_network import write_checkpoint
from typer.testing import CliRunner, Result

from edge_latup.cli import app
from edge_latup.cli.output import Mode, configure
from edge_latup.errors import EdgeLatupError
from edge_latup.networks.build import load_checkpoint


@pytest.fixture(autouse=True)
def _quiet_afterwards() -> Iterator[None]:
    """The mode and the threads are set once a process; each test leaves the defaults behind."""
    threads = torch.get_num_threads()
    yield
    configure(Mode.HUMAN)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("cases") / "case")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train(out: Path, *arguments: object) -> Result:
    return run("train", "--out", out, "--width", 8, "--phase", "16:1", "--phase", "24:1", "--threads", 1, *arguments)


def test_a_checkpoint_is_trained_and_named(tmp_path: Path, case: Path) -> None:
    result = train(tmp_path / "run", "--cases", case, "--seed", 3, "--l2", 0.02)
    assert result.exit_code == 0, result.output
    assert f"checkpoint in {tmp_path / 'run'}" in result.stdout
    assert "read case" in result.stderr
    assert "training 2/2 loss" in result.stderr
    _, spec = load_checkpoint(tmp_path / "run")
    assert spec.network is not None
    assert (spec.network.width, spec.modalities, spec.spatial.size) == (8, ("flair", "t1ce", "t2"), (128, 128, 128))
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (recipe["seed"], recipe["l2"], recipe["phases"]) == (3, 0.02, [{"patch": 16, "steps": 1}, {"patch": 24, "steps": 1}])


def test_json_is_the_training_record_and_a_finished_run_is_only_told_again(tmp_path: Path, case: Path) -> None:
    first, second = (
        run("--json", *["train", "--out", tmp_path / "run", "--width", 8, "--phase", "16:1", "--cases", case]) for _ in range(2)
    )
    record = json.loads(first.stdout)
    assert record["recipe"]["phases"] == [{"patch": 16, "steps": 1}]
    assert record["held_out_dice"] == {}
    assert json.loads(second.stdout) == record


def test_quiet_prints_nothing(tmp_path: Path, case: Path) -> None:
    result = run("--quiet", "train", "--out", tmp_path / "run", "--width", 8, "--phase", "16:1", "--cases", case)
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no training case given"),
        (["--cases", "nowhere"], "nowhere does not exist"),
        (["--real-cases", "nowhere"], "nowhere does not exist"),
        (["--phase", "64"], "--phase '64' is not PATCH:STEPS"),
        (["--phase", "60:10"], "--phase '60:10' is not PATCH:STEPS"),
        (["--phase", "8:10"], "--phase '8:10' is not PATCH:STEPS"),
        (["--phase", "64:0"], "--phase '64:0' is not PATCH:STEPS"),
        (["--phase", "²:1"], "--phase '²:1' is not PATCH:STEPS"),
        (["--phase", "a:b"], "--phase 'a:b' is not PATCH:STEPS"),
        (["--phase", "136:1"], "patch 136 is larger than the crop (128, 128, 128)"),
        (["--width", "12"], "--width 12 is not a positive multiple of 8"),
        (["--width", "0"], "--width 0 is not a positive multiple of 8"),
        (["--learning-rate", "0"], "--learning-rate 0 is not between 0 and 1"),
        (["--final-learning-rate", "-1"], "--final-learning-rate -1 is not between 0 and 1"),
        (["--learning-rate", "nan"], "--learning-rate nan is not between 0 and 1"),
        (["--real-share", "1.5"], "--real-share 1.5 is not between 0 and 1"),
        (["--dice-smoothing", "0"], "--dice-smoothing 0 is not above 0"),
        (["--start-from", "nowhere"], "nowhere is not a checkpoint"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_nothing_is_written(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("train", "--out", tmp_path / "run", *arguments)
    assert isinstance(result.exception, EdgeLatupError)
    assert message in result.exception.message
    assert result.exception.hint
    assert result.exception.exit_code == 2
    assert not tree(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "-1"],
        ["--grafts", "-1"],
        ["--stop-after", "0"],
        ["--foreground-share", "1.1"],
        ["--l2", "-0.1"],
        ["--threads", "-1"],
        ["--width", "x"],
        ["--nonsense"],
    ],
)
def test_bad_usage_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    result = run("train", "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 2
    assert not tree(tmp_path)


def test_a_case_that_is_trained_on_cannot_be_held_out(tmp_path: Path, case: Path) -> None:
    result = train(tmp_path / "run", "--cases", case, "--held-out", case)
    assert isinstance(result.exception, EdgeLatupError)
    assert "held-out case case" in result.exception.message
    assert not tree(tmp_path)


def test_another_recipe_in_the_folder_is_refused(tmp_path: Path, case: Path) -> None:
    assert train(tmp_path / "run", "--cases", case).exit_code == 0
    before = tree(tmp_path)
    result = train(tmp_path / "run", "--cases", case, "--seed", 9)
    assert isinstance(result.exception, EdgeLatupError)
    assert "holds a run with another recipe" in result.exception.message
    assert tree(tmp_path) == before


def test_a_checkpoint_that_is_no_run_is_not_written_over(tmp_path: Path, case: Path) -> None:
    write_checkpoint(tmp_path)
    before = tree(tmp_path)
    result = train(tmp_path, "--cases", case)
    assert isinstance(result.exception, EdgeLatupError)
    assert "holds a checkpoint and no run to resume" in result.exception.message
    assert tree(tmp_path) == before
