"""One case from files to label map: MONAI with PyTorch beside this package's own engine, in one run."""
