"""From a trained network to an ONNX artifact, with proof of parity."""
