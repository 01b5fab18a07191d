"""Not a test: run by tests inside the arm64 root, and on this machine for comparison. One inference, raw probabilities to a file.

Arguments: artifact folder, runtime, .npy of the input (N, C, D, H, W), .npy to write the output to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import numpy as np

from edge_latup.artifact import open_artifact
from edge_latup.manifest import RuntimeName
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import SessionOptions

artifact, runtime, given, out = sys.argv[1:]
with open_session(open_artifact(Path(artifact)), cast(RuntimeName, runtime), SessionOptions(threads=2)) as session:
    np.save(out, session.infer(np.load(given)))
