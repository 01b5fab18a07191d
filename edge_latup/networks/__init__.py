"""PyTorch networks. Imported only by training and export: the clinic core never loads this room."""
