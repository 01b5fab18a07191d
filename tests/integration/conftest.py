"""Machines that the slow tests run on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from aarch64.arm import CANNOT, FOLDER, Arm


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    arm = Arm(FOLDER / "root" / "srv" / f"test-{os.getpid()}")
    probe = arm.run("uname", "-m")
    if probe.returncode == CANNOT:
        pytest.skip(probe.stderr.strip())
    assert probe.stdout.strip() == "aarch64", probe.stderr
    arm.share.mkdir(parents=True)
    yield arm
    shutil.rmtree(arm.share)
