"""Thousands of mutated bundles: none crashes, hangs, writes elsewhere or is accepted as another content (see tests/bundle_fuzz.py)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from bundle_fuzz import TARGETS, Outcome, fuzz

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the limit of time for each case needs POSIX")


def check(outcome: Outcome, cases: int) -> None:
    assert outcome.wrong == []
    assert sum(outcome.cases.values()) == cases
    assert sum(outcome.refused.values()) + sum(outcome.same.values()) == cases
    for target in TARGETS:
        # Nearly every mutation changes what is signed; more than this accepted would mean that they change nothing.
        assert outcome.refused[target] > 0.9 * outcome.cases[target]
    for target in ("manifest", "signature", "file"):
        assert outcome.same[target] <= 0.01 * outcome.cases[target]  # a byte replaced by itself, two equal parts exchanged


def test_a_thousand_mutations(tmp_path: Path) -> None:
    check(fuzz(tmp_path, 1_000, seed=1), 1_000)


@pytest.mark.slow
def test_ten_thousand_mutations(tmp_path: Path) -> None:
    check(fuzz(tmp_path, 12_000, seed=2), 12_000)
