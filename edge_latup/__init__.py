"""edge-latup: trained 3-D brain-tumour segmentation networks, taken to the hardware a clinic has."""
