"""Predict an artifact on a target: a bound that no runtime beats, a likely latency with its method, memory and energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge_latup.artifact import Artifact
from edge_latup.bench.predict_graph import Work, work_of
from edge_latup.bench.predict_memory import predict_memory
from edge_latup.bench.predict_records import EnergyPrediction, LayerPrediction, Prediction
from edge_latup.bench.published_cases import CASES, CHECKED_WITHIN, likely_from
from edge_latup.manifest import Precision
from edge_latup.spec import Size
from edge_latup.targets.class_rates import ClassRates, likely_seconds, shipped_rates
from edge_latup.targets.isa import NATIVE
from edge_latup.targets.profile import PowerMode, Profile
from edge_latup.targets.refusals import require_precision
from edge_latup.targets.roofline import Machine, Operation, bound_of, bound_seconds, machine_of

NOT_EXECUTED: Final = "predicted, nothing was executed on such a device"
BY_CLASS: Final = (
    "sum over operations, each at the rate measured for the operation most like it in kind, precision, kernel, channels and volume"
)
BY_EFFICIENCY: Final = "the bound divided by the share of the roofline that published cases reached: median, best and worst of {}"
NO_RATES: Final = "none: no class rates of this instruction set were measured (make predict-check measures them on a host that has it)"


@dataclass(frozen=True, kw_only=True)
class Likely:
    """A likely latency in ms with its range, and where it comes from. by_layer: in ms; None where it is one factor."""

    milliseconds: float | None
    span: tuple[float, float] | None
    method: str
    error: str
    evidence: str
    by_layer: Callable[[Operation], float] | None = None


def predict(
    artifact: Artifact, profile: Profile, *, size: Size | None = None, threads: int | None = None, rates: ClassRates | None = None,
    float_precision: Precision | None = None,
) -> Prediction:  # fmt: skip
    """What `artifact` is expected to do on the target that `profile` describes. Reads the graph; runs nothing.

    Args:
        artifact: ONNX or OpenVINO.
        profile: the target.
        size: spatial size; default the artifact's own.
        threads: of an x86 target; None for all of its cores.
        rates: class rates of a host with the target's instruction set; default those that come with edge-latup.
        float_precision: of what is not INT8, as a runtime may be told; default the artifact's own.

    Raises:
        InputError: the target does not compute in a precision the artifact needs, or the artifact cannot take `size`.
        ArtifactError: the artifact holds no graph.
    """
    work = work_of(artifact, size, float_precision)
    for precision in dict.fromkeys(operation.precision for operation in work.operations if operation.macs):
        require_precision(profile, precision)
    machine = machine_of(profile, threads)
    likely = likely_of(work, profile, machine, rates)
    manifest = artifact.manifest
    return Prediction(
        artifact=manifest.name, artifact_sha256=artifact.digest, target=profile.name, target_title=profile.title,
        input_shape=work.input_shape, precision="int8" if manifest.precision == "int8" else float_precision or manifest.float_precision,
        threads=threads if profile.kind == "x86" else None, macs=work.macs, bound_ms=1000 * bound_of(work.operations, machine),
        probed=_probed(profile),
        likely_ms=likely.milliseconds, likely_range_ms=likely.span, method=likely.method, error=likely.error, evidence=likely.evidence,
        memory=predict_memory(artifact, work, profile), energy=_energy(work, profile, threads, rates),
        notes=_notes(artifact, profile, work, rates), layers=layers_of(work, machine, likely),
    )  # fmt: skip


def _probed(profile: Profile) -> bool:
    """Whether rates were measured: what one convolution reached on one day is no ceiling, least of all on a busy machine."""
    return any(figure.kind == "measured" for figure in (*profile.gmacs.values(), profile.bandwidth_gb_s))


def likely_of(work: Work, profile: Profile, machine: Machine, rates: ClassRates | None = None) -> Likely:
    """The likely latency by the best method there is for the target."""
    if profile.kind != "x86":
        return _by_efficiency(1000 * bound_of(work.operations, machine))
    found = rates or _shipped(profile)
    if found is None:
        return Likely(milliseconds=None, span=None, method=NO_RATES, error="not known", evidence=NOT_EXECUTED)
    return by_class(work, found, machine)


def _shipped(profile: Profile) -> ClassRates | None:
    """Those that come with edge-latup; "native" ones only for the very CPU they were measured on, since the word says nothing of others."""
    found = None if profile.isa is None else shipped_rates(profile.isa)
    if found is not None and found.isa == NATIVE and found.host.cpu != profile.processor:
        return None
    return found


def by_class(work: Work, rates: ClassRates, target: Machine | None = None) -> Likely:
    """The sum over operations at class rates, scaled to `target` where it is not the measured host."""

    def layer(operation: Operation) -> float:
        return 1000 * likely_seconds(operation, rates, target)

    total = sum(layer(operation) for operation in work.operations)
    host = f"{rates.host.cpu} under {rates.isa}" if rates.emulated else rates.host.cpu
    scaled = "" if target is None else ", scaled by the ratio of the peak rates"
    return Likely(
        milliseconds=total, span=(total / (1 + CHECKED_WITHIN), total * (1 + CHECKED_WITHIN)), method=f"{BY_CLASS}{scaled}",
        error=f"held to {CHECKED_WITHIN:.0%} on the host the rates were measured on (docs/prediction.md); on others not known",
        evidence=f"class rates measured on {host}, {rates.threads} threads; the network itself was not executed", by_layer=layer,
    )  # fmt: skip


def _by_efficiency(bound_ms: float) -> Likely:
    likely, span = likely_from(bound_ms)
    return Likely(
        milliseconds=likely, span=span, method=BY_EFFICIENCY.format("; ".join(case.name for case in CASES)),
        error="four published cases on other networks and clocks: see edge-latup predict --published", evidence=NOT_EXECUTED,
    )  # fmt: skip


def layers_of(work: Work, machine: Machine, likely: Likely) -> tuple[LayerPrediction, ...]:
    """Every operation's part."""
    return tuple(
        LayerPrediction(
            name=operation.name, kind=operation.kind, precision=operation.precision, macs=operation.macs,
            bytes_moved=operation.bytes_moved, bound_ms=1000 * bound_seconds(operation, machine),
            likely_ms=None if likely.by_layer is None else likely.by_layer(operation),
        )
        for operation in work.operations
    )  # fmt: skip


def _energy(work: Work, profile: Profile, threads: int | None, rates: ClassRates | None) -> tuple[EnergyPrediction, ...]:
    """One entry a power mode with a stated limit; the board's or package's power where there are no modes."""
    modes = [mode for mode in profile.power_modes if mode.watts is not None]
    if not modes and profile.idle_or_board_watts is not None:
        modes = [PowerMode(name="board or package", watts=profile.idle_or_board_watts)]
    found = []
    for mode in modes:
        known = not profile.power_modes or mode.gpu_share is not None
        likely = likely_of(work, profile, machine_of(profile, threads, mode), rates) if known else None
        watts = mode.watts.value if mode.watts is not None else 0.0
        joules = watts * likely.span[1] / 1000 if likely is not None and likely.span is not None else None
        found.append(EnergyPrediction(
            mode=mode.name, watts=watts, milliseconds=likely.milliseconds if likely is not None else None, joules_at_most=joules
        ))  # fmt: skip
    return tuple(found)


def _notes(artifact: Artifact, profile: Profile, work: Work, rates: ClassRates | None) -> tuple[str, ...]:
    notes = []
    if _probed(profile):
        notes.append("a network whose kernels suit this machine better than the probe's convolution is faster than at these rates")
    if rates is not None and profile.kind == "x86" and rates.isa != profile.isa:
        notes.append(f"the class rates were measured under {rates.isa}, the target runs {profile.isa}: other kernels may run there")
    made_for = artifact.manifest.runtimes
    if not set(made_for) & set(profile.runtimes):
        notes.append(
            f"the artifact was made for {', '.join(made_for)}; this target runs {', '.join(profile.runtimes)}: quantize it for one of them"
        )
    if profile.dla_cores:
        notes.append("the DLA takes 2-D tensors only, so nothing of a 3-D network is placed there")
    if profile.kind != "x86" and any(operation.kernel >= 4 for operation in work.operations):
        notes.append("kernels of 4^3 and more have no published case: their share of the peak may be another")
    return tuple(notes)
