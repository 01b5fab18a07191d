"""Weights that TensorFlow wrote, and what its own network makes of them.

TensorFlow lives in an environment of its own, never in this one:
    python3.11 -m venv tf && tf/bin/pip install tensorflow-cpu==2.15.1
    EDGE_LATUP_KERAS_PYTHON=tf/bin/python pytest -m slow tests/integration/test_keras_twin.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_latup.export.adapters.hdf5 import read_keras
from edge_latup.export.adapters.keras_latup import latup_of

PYTHON = os.environ.get("EDGE_LATUP_KERAS_PYTHON", "")


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="EDGE_LATUP_KERAS_PYTHON names no Python with tensorflow-cpu 2.15")
def test_keras_and_we_compute_the_same(tmp_path: Path) -> None:
    script = Path(__file__).with_name("keras_twin.py")
    subprocess.run([PYTHON, str(script), str(tmp_path)], check=True, capture_output=True, timeout=300)
    twin = np.load(tmp_path / "twin.npz", allow_pickle=False)
    for name in ("legacy.h5", "whole.h5", "numbered.weights.h5", "whole.keras"):
        network, _ = latup_of(read_keras(tmp_path / name))
        assert sum(parameter.numel() for parameter in network.parameters()) == int(twin["parameters"])
        with torch.inference_mode():
            found = network(torch.from_numpy(twin["image"].transpose(0, 4, 1, 2, 3).copy())).numpy().transpose(0, 2, 3, 4, 1)
        np.testing.assert_allclose(found, twin["probabilities"], rtol=0, atol=1e-5, err_msg=name)
        assert np.ptp(found, axis=(1, 2, 3)).max() > 0.01, "a constant output would agree with anything"
