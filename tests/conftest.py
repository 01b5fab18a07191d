"""Fixtures for every room, and Hypothesis told to be quick, repeatable and to write nothing into the repository."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from command import Command
    from tiny_models import Compress

    from edge_latup.artifact import Artifact
    from edge_latup.manifest import RuntimeName
    from edge_latup.quantize.calibration import Calibration

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))  # `from support import ...`, also where the tests run against the installed wheel

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "edge-latup-hypothesis")
settings.register_profile("edge-latup", max_examples=40, deadline=None, derandomize=True, database=None)
settings.load_profile("edge-latup")


@pytest.fixture(scope="session")
def real_cases() -> Path:
    """The folder with the two real BraTS cases, which are never committed; skips, saying why, where it is not."""
    named = os.environ.get("EDGE_LATUP_CASES")
    folder = Path(named) if named else HERE.parent.parent / "shared" / "data" / "brats"
    if not (folder / "BraTS-GLI-00000-000").is_dir():
        pytest.skip(f"no real cases in {folder}; name their folder in EDGE_LATUP_CASES")
    return folder


# Tiny cases and models that the tests of runtimes, quantization, bench and command line share; made once, never changed.


@pytest.fixture(scope="session")
def tiny_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labelled phantoms of 40 x 36 x 32; the tiny network was trained on the first, as far as its checkpoint tells."""
    from edge_latup.cases.cohort import write_cohort

    folder = tmp_path_factory.mktemp("cases")
    list(write_cohort(folder, cases=3, seed=5, shape=(40, 36, 32)))
    return folder


@pytest.fixture(scope="session")
def calibration_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labelled phantoms that are not among the tiny cases."""
    from edge_latup.cases.cohort import write_cohort

    folder = tmp_path_factory.mktemp("calibration-cases")
    list(write_cohort(folder, cases=2, seed=6, shape=(40, 36, 32)))
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_cases: Path) -> Path:
    """LATUP-Net of width 8 with random weights."""
    from tiny_models import tiny_spec, write_checkpoint

    from edge_latup.cases.identity import case_digest
    from edge_latup.cases.layout import find_cases
    from edge_latup.cases.read import read_case
    from edge_latup.manifest import SeenCase

    first = read_case(find_cases(tiny_cases)[0], tiny_spec().modalities)
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), [SeenCase(name=first.name, sha256=case_digest(first))])


@pytest.fixture(scope="session")
def tiny_fp32(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Artifact:
    """Its FP32 ONNX artifact."""
    from edge_latup.export.torch_onnx import export_onnx

    return export_onnx(tiny_checkpoint, tmp_path_factory.mktemp("artifacts") / "fp32")


@pytest.fixture(scope="session")
def tiny_reference(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Artifact:
    """Its PyTorch artifact."""
    from edge_latup.export.torch_onnx import export_reference

    return export_reference(tiny_checkpoint, tmp_path_factory.mktemp("artifacts") / "pytorch")


@pytest.fixture(scope="session")
def tiny_calibration(calibration_cases: Path) -> Calibration:
    """Four crops of the calibration cases."""
    from tiny_models import tiny_spec

    from edge_latup.quantize.calibration import make_calibration

    return make_calibration([calibration_cases], tiny_spec(), crops_per_case=2)


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory, tiny_fp32: Artifact, tiny_calibration: Calibration) -> Compress:
    """Makes each compressed artifact when it is first asked for, and gives the same one afterwards."""
    from edge_latup.quantize.methods import METHODS, quantize

    folder = tmp_path_factory.mktemp("compressed")

    @functools.cache
    def make(method: str, runtime: RuntimeName) -> Artifact:
        calibration = tiny_calibration if METHODS[method].needs_calibration else None
        return quantize(tiny_fp32, method, folder / f"{method}-{runtime}", runtime=runtime, calibration=calibration)

    return make


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """The command line, as its entry point runs it, in this process."""
    from command import Command

    from edge_latup.cli.output import Mode, configure

    yield Command(monkeypatch, capsys)
    configure(Mode.HUMAN)
