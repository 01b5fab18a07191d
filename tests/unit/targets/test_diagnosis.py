"""The diagnosis names what is missing and the command that adds it, and survives a broken runtime."""

from __future__ import annotations

import sys

import pytest

from edge_latup.targets import diagnosis
from edge_latup.targets.diagnosis import CORE, ENGINEER, PACKAGES, diagnose


def test_here_everything_the_tests_need_is_installed() -> None:
    report = diagnose()
    assert report.host.cpu
    assert {item.name for item in report.items if not item.works} == set()
    assert all(item.version[0].isdigit() for item in report.items)
    assert "fp32" in report.openvino_precisions
    assert set(report.openvino_precisions) <= {"fp32", "fp16", "bf16", "int8"}


def test_what_is_missing_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "installed", lambda package: package not in ("openvino", "nncf", "PIL"))
    report = diagnose()
    assert {item.name: item.remedy for item in report.items if not item.works} == {"openvino": CORE, "nncf": ENGINEER, "pillow": ENGINEER}
    assert report.openvino_precisions == ()


def test_openvino_that_does_not_start_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert diagnose().openvino_precisions == ()


def test_each_package_is_listed_once_and_found_under_its_import_name() -> None:
    assert len({name for _, name, _, _ in PACKAGES}) == len(PACKAGES)
    assert all(module == name or (module, name) == ("PIL", "pillow") for module, name, _, _ in PACKAGES)
