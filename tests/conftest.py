"""Fixtures for every room, and Hypothesis told to be quick, repeatable and to write nothing into the repository."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

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
