"""What the demo's INT8 leaves in float, and how its ranges are found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge_latup.artifact import Artifact, open_artifact, sha256_of
from edge_latup.bench import demo as module
from edge_latup.bench.demo import NOTE, compress, demo_checkpoint, notes_on
from edge_latup.targets.host import AMX, describe_host

pytest.importorskip("nncf")


def silent(line: str) -> None:
    return


def test_int8_of_latup_net_leaves_two_convolutions_in_float(tiny_fp32: Artifact, tiny_cases: Path, tmp_path: Path) -> None:
    compress(tiny_fp32, tmp_path, tiny_cases, lambda line: None, stored=())
    manifest = open_artifact(tmp_path / "int8").manifest
    parameters = manifest.recipe[-1].parameters
    assert list(parameters["keep_float"]) == ["encoder1.embedding", "output"]
    assert (parameters["ranges"], parameters["paired"]) == ("mse", False)
    assert manifest.audit is not None
    assert manifest.audit.declared_int8 == pytest.approx(0.972, abs=0.002)  # of this narrow one; 0.993 of the published width


@pytest.mark.parametrize("isa", ["AVX2", AMX])
def test_taps_are_paired_where_there_is_amx(
    isa: str, tiny_fp32: Artifact, tiny_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    host = describe_host().model_copy(update={"isa": (isa,)})
    monkeypatch.setattr(module, "describe_host", lambda: host)
    compress(tiny_fp32, tmp_path, tiny_cases, silent, stored=())
    if not (tmp_path / "int8-bf16").exists():
        pytest.skip("this CPU has no BF16")
    assert open_artifact(tmp_path / "int8-bf16").manifest.recipe[-1].parameters["paired"] is (isa == AMX)


def test_another_network_has_no_module_of_that_name(tiny_fp32: Artifact, tiny_cases: Path, tmp_path: Path) -> None:
    spec = tiny_fp32.manifest.spec.model_copy(update={"network": None})
    foreign = dataclasses.replace(tiny_fp32, manifest=tiny_fp32.manifest.model_copy(update={"spec": spec}))
    compress(foreign, tmp_path, tiny_cases, lambda line: None, stored=())
    done = open_artifact(tmp_path / "int8").manifest.recipe[-1].parameters
    assert "keep_float" not in done
    assert done["ranges"] == "mean min-max"


def test_only_the_demo_checkpoint_is_called_that(tiny_fp32: Artifact) -> None:
    assert notes_on(tiny_fp32) == ()
    step = tiny_fp32.manifest.recipe[0]
    digest = sha256_of(demo_checkpoint() / "model.safetensors")
    demo = step.model_copy(update={"parameters": step.parameters | {"checkpoint_sha256": digest}})
    exported = dataclasses.replace(tiny_fp32, manifest=tiny_fp32.manifest.model_copy(update={"recipe": (demo,)}))
    assert notes_on(exported) == (NOTE,)
