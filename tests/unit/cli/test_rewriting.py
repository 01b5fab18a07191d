"""`edge-latup quantize --method rewrite`: passes are chosen, measured by default, and wrong mixes of options refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import Command
from support import tree

from edge_latup.artifact import Artifact, open_artifact
from edge_latup.cli.rewriting import rewriting_of
from edge_latup.quantize.surgery import PASSES, plan
from edge_latup.quantize.surgery.measure import Comparison, Effort


def test_it_measures_unless_told_not_to() -> None:
    asked = rewriting_of("rewrite", None, True, False, None)
    assert asked is not None
    assert (asked.passes, asked.effort, asked.trust_batch_norm) == ((), Effort(), False)
    asked = rewriting_of("rewrite", "all", False, True, None)
    assert asked is not None
    assert (asked.passes, asked.effort, asked.trust_batch_norm) == (tuple(PASSES), None, True)
    asked = rewriting_of("int8", " fuse-upsampling, remove-no-ops", True, False, "auto")
    assert asked is not None
    assert (asked.passes, asked.effort) == (("fuse-upsampling", "remove-no-ops"), Effort())
    assert rewriting_of("int8", None, True, False, None) is None


def test_what_was_measured_is_told_and_kept(cli: Command, tiny_fp32: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare_models(before: Artifact, after: Artifact, runtime: str, effort: Effort, tell: Any) -> Comparison:
        tell("pair 1 of 1: 0.500 of the time before")
        equal = {"max_abs": 0.0, "relative_l2": 0.0, "argmax_agreement": 1.0}
        return Comparison(before_ms=(2.0,), after_ms=(1.0,), before_peak_bytes=2, after_peak_bytes=1, threads=2, difference=equal)

    monkeypatch.setattr(plan, "compare_models", compare_models)
    done = cli("quantize", tiny_fp32.folder, "--method", "rewrite", "--out", tmp_path / "made")
    assert done.code == 0, done.err
    assert "fuse-upsampling: pair 1 of 1: 0.500 of the time before" in done.err
    assert "fuse-upsampling: kept, 0.500 of the time before" in done.err
    parameters = open_artifact(tmp_path / "made").manifest.recipe[-1].parameters
    assert [(outcome["name"], outcome["ratio"]) for outcome in parameters["outcomes"] if outcome["kept"]] == [("fuse-upsampling", 0.5)]


WRONG = {
    "unknown pass": (("--method", "rewrite", "--passes", "fuse"), "unknown pass 'fuse'", "fuse-upsampling"),
    "passes of another method": (("--method", "fp16", "--passes", "all"), "fp16 rewrites no graph", "--rewrite auto"),
    "unmeasured elsewhere": (("--method", "fp16", "--no-measure"), "fp16 rewrites no graph", "--no-measure"),
    "auto, but unmeasured": (("--method", "fp16", "--rewrite", "auto", "--no-measure"), "--rewrite auto keeps", "--no-measure"),
    "another word": (("--method", "fp16", "--rewrite", "yes"), "--rewrite 'yes' is not known", "auto"),
    "a rewrite of a rewrite": (("--method", "rewrite", "--rewrite", "auto"), "is for methods that compress", "leave it out"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_mixes_are_refused_and_nothing_is_written(cli: Command, tiny_fp32: Artifact, tmp_path: Path, name: str) -> None:
    arguments, message, hint = WRONG[name]
    done = cli("quantize", tiny_fp32.folder, *arguments, "--out", tmp_path / "made")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert hint in done.err.split("hint: ")[1]
    assert not tree(tmp_path)
