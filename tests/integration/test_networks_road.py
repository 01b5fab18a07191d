"""Every network of the index, tiny, on the whole road: export with parity, compression, audit, gate, and a case segmented."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command import Command
from tiny_networks import NETWORKS, write_checkpoint_of

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.bench.network_records import load_network
from edge_latup.errors import GateRefusedError
from edge_latup.networks.build import load_checkpoint
from edge_latup.runtimes import open_session
from edge_latup.segmentation.parity import parity_input

CASE = "phantom-0003-0000"
METHODS = ("dynamic-range", "bf16", "int8")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edge_latup.cases.cohort import write_cohort

    folder = tmp_path_factory.mktemp("networks")
    list(write_cohort(folder / "held-out", cases=1, seed=3, shape=(40, 36, 32)))
    list(write_cohort(folder / "calibration", cases=2, seed=4, shape=(40, 36, 32)))
    return folder


def ran(cli: Command, *arguments: object) -> None:
    done = cli(*arguments)
    assert done.code == 0, done.err


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_from_checkpoint_to_gate_and_label_map(cli: Command, cases: Path, tmp_path: Path, name: str) -> None:
    checkpoint = write_checkpoint_of(name, tmp_path / "checkpoint")
    ran(cli, "export", checkpoint, "--out", tmp_path / "fp32")
    fp32 = open_artifact(tmp_path / "fp32")
    assert [parity.candidate for parity in fp32.manifest.parity] == ["onnxruntime fp32", "openvino fp32"]
    computes_what_pytorch_computes(fp32, checkpoint)
    for method in METHODS:
        calibration = ("--calibration", cases / "calibration") if method == "int8" else ()
        ran(cli, "quantize", fp32.folder, "--method", method, *calibration, "--out", tmp_path / method)
    small, int8 = open_artifact(tmp_path / "dynamic-range"), open_artifact(tmp_path / "int8")
    assert small.manifest.model_size < fp32.manifest.model_size
    assert (small.manifest.storage, int8.manifest.precision) == ("int8", "int8")
    outputs_are_probabilities(int8)
    ran(
        cli, "bench", *(tmp_path / folder for folder in ("fp32", "dynamic-range", "int8")), "--cases", cases / "held-out",
        "--out", tmp_path / "run", "--runs", 2, "--threads", 2,
    )  # fmt: skip
    judged = cli("gate", tmp_path / "run")
    assert judged.code in (0, GateRefusedError.exit_code), judged.err
    row = json.loads((tmp_path / "run" / "rows" / "int8.json").read_text())
    assert {"i8", "u8"} & set(row["executed_convolutions"])
    segmented(cli, tmp_path, cases / "held-out" / CASE)


def computes_what_pytorch_computes(artifact: Artifact, checkpoint: Path) -> None:
    """Beyond the parity of the export: on an input of its own, in each runtime."""
    network, spec = load_checkpoint(checkpoint)
    batch = np.random.default_rng(0).standard_normal(spec.input_shape, dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()
    assert expected.std() > 0.01, "an output that does not depend on the input would prove little"
    for runtime in ("onnxruntime", "openvino"):
        with open_session(artifact, runtime) as session:  # type: ignore[arg-type]
            np.testing.assert_allclose(session.infer(batch), expected, atol=2e-4)


def outputs_are_probabilities(artifact: Artifact) -> None:
    spec = artifact.manifest.spec
    with open_session(artifact) as session:
        output = session.infer(parity_input(spec, spec.spatial.size))
    assert output.min() >= 0
    assert output.max() <= 1 + 1e-6
    if spec.regions is None:
        np.testing.assert_allclose(output.sum(1), 1, atol=1e-4)


def segmented(cli: Command, folder: Path, case: Path) -> None:
    for kind in ("fp32", "int8"):
        ran(cli, "segment", folder / kind, case, "--out", folder / f"{kind}.nii.gz")
        found, source = nib.load(folder / f"{kind}.nii.gz"), nib.load(case / f"{CASE}-t2f.nii.gz")
        assert found.shape == source.shape
        np.testing.assert_array_equal(found.affine, source.affine)
        assert set(np.unique(np.asarray(found.dataobj))) <= {0, 1, 2, 3}


@pytest.mark.slow
def test_the_whole_road_is_one_command(cli: Command, cases: Path, tmp_path: Path) -> None:
    checkpoint, out = write_checkpoint_of("attention-resnet-unet R2", tmp_path / "checkpoint"), tmp_path / "road"
    folders = ("--calibration", cases / "calibration", "--cases", cases / "held-out")
    ran(cli, "bench-network", checkpoint, *folders, "--out", out, "--runs", 2, "--seconds", 0.1, "--onnxruntime")
    made = load_network(out)
    assert made.other is not None
    assert (set(made.other.rows), len(made.record.other_decisions)) == ({"fp32", "dynamic-int8"}, 1)
    assert made.other.rows["dynamic-int8"].runtime == "onnxruntime"
    assert {"fp32", "dynamic-range", "int8"} <= set(made.run.rows)
    assert {decision.candidate for decision in made.record.decisions} == set(made.run.rows) - {"fp32"}
    assert made.record.chosen == "fp32" or next(one for one in made.record.decisions if one.candidate == made.record.chosen).accepted
    one, every = (row for row in made.record.cases if row.name.startswith(f"{made.record.chosen}, "))
    assert (one.spec.views, every.spec.views) == (("identity",), ("identity", "mirror", "rotate"))
    assert all(len(row.warm) >= 1 for row in made.record.cases)
    again = cli("bench-network", checkpoint, *folders, "--out", out)
    assert (again.code, "holds a finished run" in again.err) == (2, True)
