"""Which operators ONNX Runtime should compute in INT8, chosen by measuring them on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from edge_latup.artifact import Artifact, refuse_existing
from edge_latup.errors import ArtifactError
from edge_latup.manifest import RuntimeName
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.estimators import MEAN_MIN_MAX
from edge_latup.quantize.fastest import put
from edge_latup.quantize.methods import check_calibration, choose, quantize
from edge_latup.quantize.onnxruntime_int8 import CONVOLUTIONS_ONLY, OPERATORS
from edge_latup.quantize.prepared import looker, prepare
from edge_latup.quantize.surgery.measure import Comparison, Effort, compare_models
from edge_latup.records import Record

RUNTIME: Final[RuntimeName] = "onnxruntime"
METHOD: Final = "int8"


class OperatorChoice(Record):
    """Why some operators are quantized; in the parameters of an artifact's last step, as "operator_choice"."""

    chosen: str
    """One of `OPERATORS`."""
    why: str
    measured: dict[str, Comparison] = {}
    """Each other set (after) beside convolutions alone (before), in fresh processes that take turns."""
    failed: dict[str, str] = {}
    """Sets of which no artifact could be made."""


def choose_fastest(measured: dict[str, Comparison], failed: dict[str, str]) -> OperatorChoice:
    """The set with the least median ratio among those faster than convolutions alone beyond the noise, else convolutions alone."""
    faster = {name: found.ratio for name, found in measured.items() if found.faster}
    chosen = min(faster, key=faster.__getitem__, default=CONVOLUTIONS_ONLY)
    why = f"{chosen}: {measured[chosen].in_words()}" if faster else "no other set is faster beyond the noise"
    return OperatorChoice(chosen=chosen, why=why, measured=measured, failed=failed)


def quantize_fastest_operators(
    artifact: Artifact, out: Path, *, calibration: Calibration, estimator: str | None = None, effort: Effort | None = None,
    overwrite: bool = False, tell: Callable[[str], None] = lambda _: None, **options: Any,
) -> Artifact:  # fmt: skip
    """Static INT8 for ONNX Runtime with each set of `OPERATORS`, timed here; the fastest is kept, with every sample in its manifest.

    Speed decides alone: how far each set's output is from that of convolutions alone is recorded beside it. `options` are those of
    `quantize`.

    Raises:
        EdgeLatupError: as `quantize`; a set that cannot be quantized is passed over.
    """
    choose(METHOD, RUNTIME)
    check_calibration(METHOD, given=True)
    refuse_existing(out, overwrite)
    measured: dict[str, Comparison] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edge-latup-") as name, ExitStack() as stack:
        prepared = stack.enter_context(
            prepare(
                artifact.model_path,
                calibration.inputs,
                estimator=estimator or MEAN_MIN_MAX,
                outputs=True,
                runtime=looker(artifact),
                tell=tell,
            )
        )

        def make(operators: str) -> Artifact:
            folder = Path(name) / operators / out.name
            return quantize(
                artifact, METHOD, folder, runtime=RUNTIME, calibration=calibration, prepared=prepared, operators=operators, **options
            )

        made = {CONVOLUTIONS_ONLY: make(CONVOLUTIONS_ONLY)}
        for operators in [operators for operators in OPERATORS if operators != CONVOLUTIONS_ONLY]:
            tell(f"operators {operators}")
            try:
                made[operators] = make(operators)
            except ArtifactError as error:
                failed[operators] = error.message
                continue
            measured[operators] = compare_models(made[CONVOLUTIONS_ONLY], made[operators], RUNTIME, effort or Effort(), tell)
        choice = choose_fastest(measured, failed)
        tell(f"operators {choice.chosen} kept: {choice.why}")
        return put(made[choice.chosen], {"operator_choice": choice.model_dump(mode="json")}, out, overwrite)
