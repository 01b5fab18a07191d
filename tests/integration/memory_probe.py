"""Run in a process of its own: segments one case several times and prints what memory was predicted and what was taken.

Arguments: artifact folder, spatial policy as JSON, case folder, folder to write to, number of times.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge_latup.artifact import open_artifact
from edge_latup.cases.layout import find_cases
from edge_latup.segmentation.case import Segmenter
from edge_latup.segmentation.memory import process_bytes
from edge_latup.spec import ModelSpec

PLENTY = 1 << 40
artifact, policy = open_artifact(Path(sys.argv[1])), json.loads(sys.argv[2])
case, out, times = Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5])
spec = ModelSpec.model_validate(artifact.manifest.spec.model_dump() | {"spatial": policy})
resident = []
with Segmenter(artifact, spec=spec, memory_budget=PLENTY) as segmenter:
    for index in range(times):
        outcome = segmenter.segment_files(find_cases(case)[0], out / f"{index}.nii.gz")
        resident.append(process_bytes("VmRSS"))
predicted = outcome.forecast.total if outcome.forecast else None
sys.stdout.write(json.dumps({"predicted": predicted, "peak": outcome.peak_bytes, "resident": resident}))
