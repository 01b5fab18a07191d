"""What a newcomer types wrongly is named before anything slow, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import Command
from support import tree

if TYPE_CHECKING:
    from tiny_models import Compress

    from edge_latup.artifact import Artifact

WRONG = {
    "an accelerator without rules": (("inspect", "{fp32}", "--dla"), "--dla, --target and --precision are for --rules"),
    "rules and audit at once": (("inspect", "{fp32}", "--rules", "tensorrt", "--audit"), "--rules does not take --audit and --size"),
    "a network with another's option": (("inspect", "--network", "latup-net", "--dla"), "goes with --size alone"),
    "bytes that are no ONNX": (("inspect", "{empty}", "--rules", "tensorrt"), "is not ONNX: it holds no graph"),
    "an import that has a spec": (("import", "{empty}", "--spec", "spec.toml"), "an import needs --out"),
    "an import that has a place": (("import", "{empty}", "--out", "{out}"), "an import of ONNX needs --spec"),
    "a lease without a host": (("bench", "{fp32}", "--out", "{out}", "--lease", "30"), "only --host and --fleet take --lease"),
    "an engine of no such kind": (("engine", "{fp32}", "--hardware", "any"), "an option of TensorRT cannot have this value"),
    "a demo of no checkpoint": (("demo", "--checkpoint", "nowhere", "--out", "{out}"), "nowhere is not a checkpoint: it does not exist"),
    "the whole demo of no checkpoint": (("demo", "--full", "--checkpoint", "nowhere", "--out", "{out}"), "nowhere is not a checkpoint"),
    "a clinic without the maker's key": (("verify", "{fp32}", "--key", "nowhere"), "the maker sent by another way than the bundle"),
    "a passphrase in no file": (
        ("package", "keygen", "--owner", "Me", "--out", "{out}", "--passphrase-file", "nowhere"), "holds the passphrase and nothing else",
    ),
    "no run to judge": (("gate", "nowhere"), "edge-latup bench ARTIFACT... --out nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_it_is_told_at_once_and_leaves_nothing(cli: Command, tiny_fp32: Artifact, tmp_path: Path, case: str) -> None:
    arguments, message = WRONG[case]
    (tmp_path / "empty.onnx").touch()
    before = tree(tmp_path)
    done = cli(*(word.format(fp32=tiny_fp32.folder, empty=tmp_path / "empty.onnx", out=tmp_path / "out") for word in arguments))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "hint: " in done.err
    assert tree(tmp_path) == before


def test_what_was_compressed_already_is_refused_before_cases_are_read(
    cli: Command, compressed: Compress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_latup.quantize.calibration.make_calibration", lambda *_, **__: pytest.fail("cases were read"))
    made = compressed("int8", "openvino")
    done = cli("quantize", made.folder, "--method", "int8", "--calibration", tmp_path, "--out", tmp_path / "out")
    assert done.code == 2
    assert "compression starts from FP32 ONNX" in done.err
