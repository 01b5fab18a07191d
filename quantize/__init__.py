"""From an artifact to a smaller or faster one: methods, calibration and the audit of what was really quantized."""
