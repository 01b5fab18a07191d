"""`edge-latup predict` says that it predicts, by which method, and refuses what a target cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import Command
from support import tree
from target_profiles import class_rates

from edge_latup.bench.predict_records import Prediction
from edge_latup.records import write_record

if TYPE_CHECKING:
    from tiny_models import Compress

    from edge_latup.artifact import Artifact


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A CPU's profile as a user writes one."""
    path, figure = tmp_path / "clinic.toml", 'kind = "published"\nsource = "made up"\n'
    path.write_text(
        'name = "clinic"\ntitle = "clinic PC"\nkind = "x86"\nprocessor = "none"\narchitecture = "x86-64"\nisa = "avx2"\ncores = 2\n'
        f'unified_memory = false\nruntimes = ["openvino"]\n[gmacs.fp32]\nvalue = 100\n{figure}'
        f"[bandwidth_gb_s]\nvalue = 20\n{figure}[memory_gib]\nvalue = 8\n{figure}[idle_or_board_watts]\nvalue = 50\n{figure}"
    )
    return path


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    write_record(class_rates(), tmp_path / "rates.json")
    return tmp_path / "rates.json"


def test_a_prediction_is_labelled_wherever_it_appears(cli: Command, tiny_fp32: Artifact, profile: Path, rates: Path) -> None:
    before = tree(tiny_fp32.folder)
    done = cli("predict", tiny_fp32.folder, "--target", profile, "--rates", rates, "--layers")
    assert done.code == 0, done.err
    assert "fp32, input 1x3x16x16x16, fp32, on clinic PC: PREDICTED" in done.out
    assert "latency, at least: " in done.out
    assert "latency, likely: " in done.out
    assert "method: sum over operations" in done.out
    assert "the network itself was not executed" in done.out
    assert "fits" in done.out
    assert "energy, board or package (50 W): at most " in done.out
    assert "bound ms (predicted)" in done.out
    assert "decoder1.conv1" in done.out
    assert tree(tiny_fp32.folder) == before


def test_json_is_the_labelled_record(cli: Command, tiny_fp32: Artifact) -> None:
    done = cli("--json", "predict", tiny_fp32.folder, "--target", "jetson-orin-nano-8gb")
    assert done.code == 0, done.err
    found = Prediction.model_validate(done.data)
    assert found.label == "predicted"
    assert found.evidence == "predicted, nothing was executed on such a device"
    assert found.likely_ms is not None
    assert found.bound_ms < found.likely_ms
    assert found.target == "jetson-orin-nano-8gb"


def test_rates_of_a_probe_are_no_ceilings(cli: Command, tiny_fp32: Artifact, profile: Path) -> None:
    profile.write_text(profile.read_text().replace('value = 100\nkind = "published"', 'value = 100\nkind = "measured"'))
    done = cli("predict", tiny_fp32.folder, "--target", profile)
    assert done.code == 0, done.err
    assert "at least" not in done.out
    assert "latency at the rates a probe measured, which are no ceilings: " in done.out
    assert cli("--json", "predict", tiny_fp32.folder, "--target", profile).data["probed"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--published", "--target", "tesla-t4"), "--published does not take --target"),
        (("--sizes", "64"), "only --check takes --sizes"),
        (("--published", "--check", "folder"), "--published and --check exclude each other"),
        (("ARTIFACT", "--check", "folder"), "--check does not take ARTIFACT"),
        (("ARTIFACT", "--target", "tesla-t4", "--threads", "3"), "--threads is for x86 targets, and tesla-t4 is none"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(cli: Command, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = cli("predict", *[tmp_path / word if word == "folder" else word for word in arguments])
    assert (done.code, done.out) == (2, "")
    assert f"error: {message}" in done.err
    assert tree(tmp_path) == {}


def test_an_unknown_target_names_the_known_ones(cli: Command, tiny_fp32: Artifact) -> None:
    done = cli("predict", tiny_fp32.folder, "--target", "jetson-9000")
    assert done.code == 2
    assert "there is no target 'jetson-9000'" in done.err
    assert "rtx-3060-12gb" in done.err


def test_what_is_missing_or_wrong_is_refused(cli: Command, tiny_fp32: Artifact, profile: Path, tmp_path: Path) -> None:
    for arguments in (("predict",), ("predict", tiny_fp32.folder), ("predict", "--target", "jetson-nano-4gb")):
        done = cli(*arguments)
        assert (done.code, "predict needs an artifact and a target" in done.err) == (2, True)
    assert cli("predict", tmp_path, "--target", profile).code == 2
    done = cli("predict", tiny_fp32.folder, "--target", profile, "--size", "12")
    assert (done.code, "12 is not a multiple of 8" in done.err) == (2, True)


def test_a_precision_the_board_lacks_comes_with_the_next_best_option(cli: Command, compressed: Compress) -> None:
    done = cli("predict", compressed("int8", "tensorrt").folder, "--target", "jetson-nano-4gb")
    assert done.code == 2
    assert "jetson-nano-4gb refuses int8: " in done.err
    assert "hint: instead: " in done.err


def test_what_does_not_fit_is_told_with_what_would(cli: Command, tiny_fp32: Artifact, profile: Path, rates: Path) -> None:
    profile.write_text(profile.read_text().replace("value = 8\n", "value = 1\n"))
    done = cli("predict", tiny_fp32.folder, "--target", profile, "--rates", rates)
    assert done.code == 0
    assert "DOES NOT FIT" in done.out
    assert "warning: predicted not to fit: it needs" in done.err
    assert "Instead: " in done.err


def test_published_figures_are_shown_with_their_ratios(cli: Command) -> None:
    done = cli("predict", "--published")
    assert done.code == 0
    for name in ("LATUP-Net on RTX 3060", "AGX Xavier", "Xavier NX", "T4"):
        assert name in done.out
    data = cli("--json", "predict", "--published").data
    assert [one["label"] for one in data] == ["predicted"] * 4
    assert any(not one["within"] for one in data), "failures are told"


def test_quiet_prints_nothing(cli: Command, tiny_fp32: Artifact) -> None:
    done = cli("--quiet", "predict", tiny_fp32.folder, "--target", "rtx-3060-12gb")
    assert (done.code, done.out, done.err) == (0, "", "")
