"""Ctrl-C after models were opened and closed in any order: an interruption, no segmentation fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import pointwise_artifact

ORDERS = ("first first", "last first", "on another thread")
PROGRAM = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from edge_latup.artifact import open_artifact
from edge_latup.runtimes import open_session

signal.signal(signal.SIGINT, signal.default_int_handler)
order, artifact = sys.argv[1], open_artifact(Path(sys.argv[2]))

def opened():
    session = open_session(artifact, "openvino")
    session.__enter__()
    return session

sessions = [opened(), opened()]
if order == "last first":
    sessions.pop()
    sessions.pop()
elif order == "first first":
    sessions.pop(0)
    sessions.pop(0)
else:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(sessions.clear).result()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("order", ORDERS)
def test_ctrl_c_after_models_were_closed(tmp_path: Path, order: str) -> None:
    artifact = pointwise_artifact(tmp_path / "tiny", (16, 16, 16)).folder
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM, order, artifact], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
