"""edge-latup: trained 3-D brain-tumour segmentation networks, taken to the hardware a clinic has."""

import os

# ONNX Runtime 1.31 reports its use to its makers over HTTPS unless this is set before it is first imported, by us or by a package that
# we import; its disable_telemetry_events() comes too late. Nothing may leave a clinic's machine that its people did not send.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
