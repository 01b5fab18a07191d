"""What a segmentation is judged by."""
