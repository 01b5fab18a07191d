"""What people have, brought to the import: Keras weights, nnU-Net folders, MONAI bundles, PyTorch programs.

Nothing is unpickled but tensors, by PyTorch's restricted reader.
"""
