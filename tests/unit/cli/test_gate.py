"""`edge-latup gate` prints the figures and ends with code 4 where a candidate is refused; it writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Command
from sample_run import DROPS, Plan, write_run
from support import tree

CASES = {f"real-{number}": "real" for number in range(24)}
INT8 = "openvino-int8"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """24 labelled real cases; int8 loses 0.02 on average, the others next to nothing."""
    plan = Plan(origins=CASES, drops=DROPS | {INT8: 0.02})  # type: ignore[arg-type]
    return write_run(tmp_path / "run", plan)


def test_a_refused_candidate_ends_with_code_4_and_its_figures(cli: Command, run: Path) -> None:
    before = tree(run)
    done = cli("gate", run)
    assert done.code == 4
    assert f"{INT8} against pytorch-fp32 on real cases: refused (non-inferiority test)" in done.out
    assert f"{INT8}: REFUSED\n  - on real cases, a mean loss of 0.005 Dice of WT or more is not excluded" in done.out
    assert "openvino-bf16: ACCEPTED\n" in done.out
    assert "rule: mean Dice drop below WT 0.005, TC 0.005, ET 0.005 at one-sided alpha 0.05" in done.out
    assert f"error: the gate refused {INT8}: on real cases, a mean loss" in done.err
    assert " more reasons\n" in done.err
    assert "hint: keep the reference" in done.err
    assert tree(run) == before


def test_only_the_candidates_asked_for_are_judged(cli: Command, run: Path) -> None:
    done = cli("gate", run, "--candidate", "openvino-bf16", "--candidate", "openvino-fp32")
    assert done.code == 0, done.err
    assert INT8 not in done.out
    assert "warning: openvino-bf16: few cases: a harm to 5 % of patients" in done.err


def test_json_has_rule_and_decisions_also_where_it_refuses(cli: Command, run: Path) -> None:
    done = cli("--json", "gate", run)
    assert (done.code, done.data["accepted"], done.data["rule"]["alpha"]) == (4, False, 0.05)
    accepted = {decision["candidate"]: decision["accepted"] for decision in done.data["decisions"]}
    assert accepted == {name: name != INT8 for name in DROPS}
    figures = done.data["decisions"][0]["origins"][0]["regions"][2]
    assert (figures["region"], figures["cases"], set(figures["test"]["upper"])) == ("ET", 24, {"t", "hall", "bca"})


def test_quiet_says_only_what_must_not_be_missed(cli: Command, run: Path) -> None:
    done = cli("--quiet", "gate", run)
    assert (done.code, done.out) == (4, "")
    assert all(line.startswith(("warning: ", "error: ", "hint: ")) for line in done.err.splitlines())


def test_the_margin_or_the_whole_rule_can_be_given(cli: Command, run: Path, tmp_path: Path) -> None:
    rule = tmp_path / "rule.json"
    rule.write_text(json.dumps({"margin": {"WT": 0.04, "TC": 0.04, "ET": 0.04}, "large_drop": 0.05, "resamples": 1000}))
    assert cli("gate", run, "--rule", rule).code == 0
    done = cli("--json", "gate", run, "--margin", 0.04)
    assert done.code == 4, "the mean is within the margin; the number of cases that lose more than 0.02 is not"
    assert done.data["rule"]["margin"] == {"WT": 0.04, "TC": 0.04, "ET": 0.04}
    assert "lose more than 0.02 Dice of WT, where 1 may" in done.err


WRONG = {
    "no such candidate": (("--candidate", "int4"), "compared no candidate named int4"),
    "the reference": (("--candidate", "pytorch-fp32"), "compared no candidate named pytorch-fp32"),
    "no margin": (("--margin", "0"), "--margin 0 is not a Dice drop"),
    "a margin in points": (("--margin", "nan"), "--margin nan is not a Dice drop"),
    "no such rule": (("--rule", "nowhere.json"), "nowhere.json does not exist"),
    "both": (("--margin", "0.01", "--rule", "nowhere.json"), "--margin and --rule exclude each other"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(cli: Command, run: Path, name: str) -> None:
    arguments, message = WRONG[name]
    done = cli("gate", run, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_a_rule_with_an_unknown_key_names_the_nearest(cli: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "rule.json").write_text('{"margins": {}}')
    done = cli("gate", run, "--rule", tmp_path / "rule.json")
    assert done.code == 2
    assert "did you mean 'margin'?" in done.err


def test_a_run_without_cases_has_nothing_to_judge(cli: Command, tmp_path: Path) -> None:
    done = cli("gate", write_run(tmp_path / "run", Plan(origins={})))
    assert done.code == 2
    assert "compared no candidate on any case" in done.err
    assert cli("gate", tmp_path / "nowhere").code == 2
