"""Accuracy control end to end on a small network, from cases on disk to a timed artifact: nothing is replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import Command
from tiny_models import tiny_spec

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bench.accuracy_records import ControlResult
from edge_latup.bench.store import load_run
from edge_latup.cases.cohort import write_cohort
from edge_latup.cases.layout import find_cases
from edge_latup.cases.read import read_case
from edge_latup.cases.write import write_label_map
from edge_latup.records import read_record
from edge_latup.runtimes import open_session
from edge_latup.segmentation.engine import segment
from edge_latup.spec import REGIONS, CentreCrop

SIDE = 32
OFFSET = 250.0
RULE = {"margin": dict.fromkeys(REGIONS, 0.2), "large_drop": 0.3, "worst_drop": 0.5}
"""Wide: a network with random weights is no match for INT8 anyway. What is planted costs more."""


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A network of width 8 with random weights, whose output layer reads small differences of large numbers.

    All it reads is raised by a constant that its own bias takes away again: nothing to float, but an INT8 step is as large as they are.
    """
    import torch

    from edge_latup.export.torch_onnx import export_onnx
    from edge_latup.networks.build import build, save_checkpoint

    folder, spec = tmp_path_factory.mktemp("spoiled"), tiny_spec(spatial=CentreCrop(size=(SIDE, SIDE, SIDE)))
    assert spec.network is not None
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = build(spec.network)
    with torch.no_grad():
        network.output.weight *= 4
        network.decoder1.conv2.get_submodule("0").get_parameter("bias").add_(OFFSET)
        assert network.output.bias is not None
        network.output.bias -= OFFSET * network.output.weight.sum(dim=(1, 2, 3, 4))
    save_checkpoint(folder / "checkpoint", network, spec)
    return export_onnx(folder / "checkpoint", folder / "fp32")


def write_cases(folder: Path, artifact: Artifact, *, seed: int, cases: int) -> Path:
    """Phantoms whose label is what the network finds in them, so that each voxel that INT8 changes is a loss."""
    spec = artifact.manifest.spec
    with open_session(artifact, "openvino") as session:
        for files in list(write_cohort(folder, cases=cases, seed=seed, shape=(SIDE, SIDE, SIDE))):
            case = read_case(files, spec.modalities)
            assert files.label is not None
            write_label_map(segment(session, spec, case).label, case, files.label)
    return folder


@pytest.mark.slow
def test_the_layer_that_int8_ruins_stays_float_and_its_cost_is_timed(cli: Command, spoiled: Artifact, tmp_path: Path) -> None:
    folders = {
        name: write_cases(tmp_path / name, spoiled, seed=seed, cases=2)
        for seed, name in enumerate(("--calibration", "--cases", "--confirm"))
    }
    (tmp_path / "rule.json").write_text(json.dumps(RULE))
    arguments = ["control", spoiled.folder, *(part for pair in folders.items() for part in pair), "--rule", tmp_path / "rule.json"]
    arguments += ["--runs", 3, "--seconds", 0.2, "--out", tmp_path / "out"]
    done = cli("--json", *arguments)
    assert done.code == 0, done.err
    result = read_record(ControlResult, tmp_path / "out" / "result.json")
    assert result.outcome == "INT8 accepted with layers in float"
    assert result.effects[0].layer.name == "output"
    kept = [layer.name for layer in result.keep_float]
    assert "output" in kept
    refused = [set(step.keep_float) for step in result.steps if not step.accepted]
    assert all(set(kept) - {name} in refused for name in kept), "each of them is needed: without it the gate refused"
    assert result.artifact is not None
    chosen = open_artifact(tmp_path / "out" / result.artifact)
    assert chosen.manifest.recipe[-1].parameters["keep_float"] == kept
    run = load_run(tmp_path / "out" / "bench")
    assert {"fp32", "int8-full", chosen.manifest.name} <= set(run.rows)
    assert sorted(run.record.cases) == sorted(files.name for files in find_cases(folders["--confirm"]))
    assert result.decision is not None
    assert result.decision.candidate_sha256 == chosen.digest
    shutil.rmtree(tmp_path / "out" / "bench")
    assert cli("--json", *arguments).data == done.data, "finished: nothing is run again"
