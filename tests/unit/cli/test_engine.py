"""`edge-latup engine` on a double of TensorRT: what it shows, and what it says where there is none."""

from __future__ import annotations

from pathlib import Path

import fake_tensorrt
import pytest
from command import Command
from fake_tensorrt import Behaviour
from tiny_models import Compress

from edge_latup.runtimes import tensorrt_engine, tensorrt_worker


def in_this_process(module: str, arguments: list[str], who: str) -> None:
    assert tensorrt_worker.main(arguments) == 0


def test_it_builds_shows_and_keeps(cli: Command, compressed: Compress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    does = fake_tensorrt.install(monkeypatch, Behaviour())
    monkeypatch.setattr(tensorrt_engine, "run_fresh", in_this_process)
    made = compressed("typed-fp32", "tensorrt")
    done = cli("engine", made.folder, "--cache", tmp_path / "engines", "--hardware", "ampere-plus", "--version-compatible")
    assert done.code == 0, done.err
    assert "NVIDIA GeForce RTX 3060" in done.out
    assert "precision read back: executed fp32 100.0 % of MACs" in done.out
    assert "same input, 3 answers: at most 0 apart" in done.out
    assert "ampere-plus: runs on every GPU from Ampere on; shared memory is capped" in done.out
    assert "version-compatible: runs on later TensorRT versions" in done.out
    again = cli("--json", "engine", made.folder, "--cache", tmp_path / "engines", "--hardware", "ampere-plus", "--version-compatible")
    assert again.data["tensorrt"] == "10.16.1.11"
    assert Path(again.data["engine"]).is_file()
    assert len(does.told("build")) == 1


def test_without_tensorrt_it_says_how_to_get_it(cli: Command, compressed: Compress, tmp_path: Path) -> None:
    done = cli("engine", compressed("typed-fp32", "tensorrt").folder, "--cache", tmp_path / "engines")
    assert (done.code, done.out) == (3, "")
    assert "TensorRT needs tensorrt, which is not installed" in done.err
    assert not (tmp_path / "engines").exists()


def test_an_artifact_for_another_runtime_is_refused(cli: Command, tiny_fp32: object, tmp_path: Path) -> None:
    done = cli("engine", tiny_fp32.folder)  # type: ignore[attr-defined]
    assert done.code == 2
    assert "edge-latup quantize ARTIFACT --method" in done.err
