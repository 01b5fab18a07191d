"""`edge-latup doctor` names the machine, what is installed, and for each missing package the command that adds it."""

from __future__ import annotations

import pytest
from command import Command

from edge_latup.targets import diagnosis, rates


def test_a_missing_package_is_shown_with_the_command_that_mends_it(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "installed", lambda package: package not in ("openvino", "nncf"))
    done = cli("doctor")
    assert (done.code, done.err) == (0, "")
    (openvino,) = [line for line in done.out.splitlines() if "openvino " in line]
    assert "missing" in openvino
    assert "in edge-latup's folder: pip install -c constraints.txt '.[core]'" in openvino
    (nncf,) = [line for line in done.out.splitlines() if "nncf " in line]
    assert "in edge-latup's folder: pip install -c constraints.txt '.[engineer]'" in nncf
    assert done.out.count("missing") == 2
    assert done.out.startswith("machine: ")


def test_json_tells_the_same(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "installed", lambda package: package != "onnxruntime")
    done = cli("--json", "doctor")
    assert done.code == 0
    assert [name for name, package in done.data["packages"].items() if not package["works"]] == ["onnxruntime"]
    assert done.data["packages"]["onnxruntime"]["remedy"] == "in edge-latup's folder: pip install -c constraints.txt '.[onnxruntime]'"
    assert done.data["host"]["cpu"]
    assert "fp32" in done.data["openvino_precisions"]


def test_quiet_prints_nothing(cli: Command) -> None:
    done = cli("--quiet", "doctor")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_rates_are_measured_and_say_what_was_executed(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SHAPES", ((16, 16, 3, 8), (8, 8, 1, 8)))
    done = cli("--json", "doctor", "--rates")
    assert done.code == 0
    found = {rate["precision"]: rate for rate in done.data["rates"]}
    assert found["fp32"]["executed"] == "f32"
    assert found["int8"]["executed"] in ("i8", "u8")
    assert found["int8"]["threads"] >= 2
    assert all(rate["gmacs"] > 0 for rate in found.values())
    assert "GMAC/s" in cli("doctor", "--rates").out
