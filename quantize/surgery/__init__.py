"""Exact rewrites of an ONNX graph: the same function with less work, proven equal and measured before they are kept."""

from __future__ import annotations

from edge_latup.quantize.surgery.passes import PASSES, TOLERANCE, rewrite

__all__ = ["PASSES", "TOLERANCE", "rewrite"]
