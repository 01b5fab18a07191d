"""From a case to a label map: normalise, crop or slide, infer, paste back."""
