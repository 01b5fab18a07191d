"""Attention gates, CBAM, squeeze-and-excitation, batch norms, residual sums and slices as a batch pass safely through every method."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_graphs import *  # noqa: F403
from tiny_networks import NETWORKS, tiny_spec_of, write_checkpoint_of

from edge_latup.artifact import Artifact
