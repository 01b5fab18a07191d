"""LATUP-Net on aarch64: the real wheels in an arm64 Debian under qemu give what they give on this x86 machine.

`make test-aarch64` makes the root and runs this. Emulated times mean nothing; none is taken.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from edge_latup.bench.demo import demo_checkpoint
from edge_latup.cases.cohort import write_cohort
from edge_latup.cli import app
from edge_latup.cli.output import Mode, configure
from edge_latup.metrics.overlap import dice
from edge_latup.segmentation.parity import EXPORT_TOLERANCE, RUNTIME_TOLERANCE, compare, parity_input
from edge_latup.spec import REGIONS

HERE = Path(__file__).resolve().parent
SCRIPT, INFER = HERE.parent / "aarch64" / "root.sh", HERE.parent / "aarch64" / "infer.py"
FOLDER = Path(os.environ.get("EDGE_LATUP_AARCH64") or HERE.parents[1] / ".venv" / "aarch64").resolve()
CANNOT = 3
SIDE = 48
THREADS = 2

pytestmark = pytest.mark.slow
ROWS = [
    ("fp32", "onnxruntime"), ("fp32", "openvino"), ("dynamic-range", "onnxruntime"), ("dynamic-range", "openvino"),
    ("int8-onnxruntime", "onnxruntime"), ("int8-openvino", "openvino"),
]  # fmt: skip


class Arm:
    """The arm64 root and a folder in it."""

    def __init__(self, share: Path) -> None:
        self.share = share
        self.inside = f"/{share.relative_to(FOLDER / 'root')}"

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command in the root; words that start with "@" are names in the shared folder."""
        words = [str(word).replace("@", f"{self.inside}/", 1) if str(word).startswith("@") else str(word) for word in command]
        environment = {**os.environ, "AARCH64": str(FOLDER)}
        return subprocess.run([SCRIPT, "run", *words], capture_output=True, text=True, check=False, env=environment)

    def told(self, *arguments: object) -> Any:
        """What an edge-latup command prints as JSON; it must succeed."""
        done = self.run("edge-latup", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def arm() -> Iterator[Arm]:
    share = FOLDER / "root" / "srv" / f"test-{os.getpid()}"
    probe = subprocess.run([SCRIPT, "run", "uname", "-m"], capture_output=True, text=True, check=False, env={**os.environ, "AARCH64": str(FOLDER)})
    if probe.returncode == CANNOT:
        pytest.skip(probe.stderr.strip())
    assert probe.stdout.strip() == "aarch64", probe.stderr
    share.mkdir(parents=True)
    yield Arm(share)
    shutil.rmtree(share)
