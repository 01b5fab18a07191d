"""`edge-latup inspect --audit` opens an artifact on a runtime and prints what executes each of its layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Command
from support import tree
from tiny_models import CONVOLUTIONS, Compress
from unfused import unfused_int8

from edge_latup.artifact import Artifact
from edge_latup.cli.audit import MISSING


def test_every_layer_has_its_kernel_and_the_whole_a_sentence(cli: Command, compressed: Compress) -> None:
    folder = compressed("int8", "openvino").folder
    before = tree(folder)
    done = cli("inspect", folder, "--audit", "--threads", "2")
    assert done.code == 0, done.err
    assert "int8-openvino on openvino, input 1x3x16x16x16" in done.out
    row = next(line for line in done.out.splitlines() if " decoder1.conv1 " in line)
    cells = [cell.strip() for cell in row.strip("│┃|").split("│")]
    assert (cells[0], cells[1], cells[2], cells[4], cells[5], cells[6]) == ("decoder1.conv1", "int8", "int8", "14,155,776", "14.4", MISSING)
    assert cells[3].endswith("I8")
    assert "declared INT8 100.0 % of MACs, executed INT8 100.0 %\n" in done.out
    assert "does not run" not in done.err
    assert tree(folder) == before


def test_a_file_that_runs_something_else_is_warned_of_also_when_quiet(cli: Command, tiny_fp32: Artifact, tmp_path: Path) -> None:
    broken = unfused_int8(tiny_fp32, tmp_path / "unfused")
    done = cli("--quiet", "inspect", broken.folder, "--audit", "--runtime", "onnxruntime")
    assert (done.code, done.out) == (0, "")
    assert f"{broken.folder} does not run what it declares: declared INT8 100.0 % of MACs, executed INT8 0.0 %" in done.err
    assert f"{CONVOLUTIONS} layers declared int8 ran in fp32: " in done.err
    assert "does not run" not in cli("inspect", broken.folder, "--audit", "--runtime", "openvino", "--threads", "2").err


def test_json_has_layers_shares_and_times(cli: Command, tiny_fp32: Artifact) -> None:
    data = cli("--json", "inspect", tiny_fp32.folder, "--audit", "--profile", "--threads", "2").data
    assert (data["runtime"], data["input_shape"], data["summary"]["executed"]) == ("openvino", [1, 3, 16, 16, 16], {"fp32": 1.0})
    assert data["text"] == "executed fp32 100.0 % of MACs"
    assert sum(layer["time_share"] for layer in data["layers"]) + data["other_time_share"] == pytest.approx(1)
    assert data["milliseconds"] > 0


def test_the_profile_is_told(cli: Command, tiny_fp32: Artifact) -> None:
    done = cli("inspect", tiny_fp32.folder, "--audit", "--profile", "--runtime", "onnxruntime", "--threads", "1")
    assert "profiled: " in done.out
    assert "of it in those without MACs" in done.out
    assert "profiling 4 inferences" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--audit", "--size", "32"), "--size is not for --audit"),
        (("--profile",), "--runtime, --provider, --profile and --threads are for --audit"),
        (("--threads", "2"), "--runtime, --provider, --profile and --threads are for --audit"),
        (("--runtime", "openvino"), "--runtime, --provider, --profile and --threads are for --audit"),
        (("--audit", "--runtime", "abacus"), "unknown runtime 'abacus'"),
        (("--audit", "--runtime", "pytorch"), "was made for openvino, onnxruntime, not for pytorch"),
    ],
)
def test_options_that_do_not_fit_are_refused(cli: Command, tiny_fp32: Artifact, arguments: tuple[str, ...], message: str) -> None:
    done = cli("inspect", tiny_fp32.folder, *arguments)
    assert done.code == 2
    assert message in done.err


def test_a_checkpoint_cannot_be_audited(cli: Command, tiny_checkpoint: Path) -> None:
    done = cli("inspect", tiny_checkpoint, "--audit")
    assert done.code == 2
    assert f"{tiny_checkpoint} is not an artifact" in done.err
