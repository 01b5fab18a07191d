"""Profiles as rows of text: the same facts for the command line and for the documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edge_latup.manifest import Precision
from edge_latup.targets.profile import Figure, Profile

PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
OVERVIEW: Final = ("target", "software", "refused", "memory GiB", "GB/s", *(precision.upper() for precision in PRECISIONS))
FIGURES: Final = ("figure", "kind", "how", "value", "unit")
MODES: Final = ("mode", "watts", "of the GPU's peak", "memory GB/s")
SYSTEMS: Final = ("system", "TensorRT", "Python", "newest opset", "note")
REFUSALS: Final = ("refused", "why", "instead")
HOST: Final = ("what", "told")
Row = tuple[str, ...]


def overview_row(profile: Profile) -> Row:
    """One profile among others; rates in GMAC/s, "-" where it does not compute in a precision."""
    rates = [f"{profile.gmacs[precision].value:,.0f}" if precision in profile.gmacs else "-" for precision in PRECISIONS]
    memory, bandwidth = f"{profile.memory_gib.value:g}", f"{profile.bandwidth_gb_s.value:g}"
    return (profile.name, software_of(profile), ", ".join(profile.refused) or "-", memory, bandwidth, *rates)


def software_of(profile: Profile) -> str:
    """The TensorRT series of a target with an NVIDIA GPU, the instruction set of a CPU."""
    if profile.tensorrt:
        return "TensorRT " + ", ".join(dict.fromkeys(generation.tensorrt for generation in profile.tensorrt))
    return f"{profile.runtimes[0]}, {profile.isa}" if profile.isa else profile.runtimes[0]


def figures_of(profile: Profile) -> Iterator[tuple[str, str, Figure]]:
    """(what, unit, figure) of everything that has a number and belongs to no power mode."""
    for precision in PRECISIONS:
        if precision in profile.gmacs:
            figure = profile.gmacs[precision]
            yield f"{'reached in' if figure.kind == 'measured' else 'peak'} {precision.upper()}", "GMAC/s", figure
    if profile.tf32_gmacs:
        yield "peak TF32", "GMAC/s", profile.tf32_gmacs
    yield "memory bandwidth", "GB/s", profile.bandwidth_gb_s
    yield "memory", "GiB", profile.memory_gib
    if profile.idle_or_board_watts:
        yield "power", "W", profile.idle_or_board_watts


def figure_rows(profile: Profile) -> list[Row]:
    """Each figure with how it was come by."""
    return [(what, figure.kind, figure.note, f"{figure.value:,.10g}", unit) for what, unit, figure in figures_of(profile)]


def mode_rows(profile: Profile) -> list[Row]:
    """Each power mode; "no limit stated" and "not known" instead of a number that nobody publishes."""
    return [
        (
            mode.name,
            f"{mode.watts.value:g}" if mode.watts else "no limit stated",
            f"{mode.gpu_share.value:.0%} ({mode.gpu_share.note.rstrip('.')})" if mode.gpu_share else "not known",
            f"{mode.bandwidth_gb_s.value:g}" if mode.bandwidth_gb_s else "full" if mode.gpu_share else "not known",
        )
        for mode in profile.power_modes
    ]


def system_rows(profile: Profile) -> list[Row]:
    """Each system release with its TensorRT and Python."""
    return [
        (item.system, item.tensorrt, item.python or "any", str(item.newest_opset or "20 or newer"), item.note) for item in profile.tensorrt
    ]


def refusal_rows(profile: Profile) -> list[Row]:
    """What cannot be done, why, and what to do instead."""
    return [(key, refusal.reason, refusal.instead) for key, refusal in profile.refused.items()]


def sources_of(profile: Profile) -> list[str]:
    """Every document the profile rests on, in the order of their first use."""
    modes = (figure for mode in profile.power_modes for figure in (mode.watts, mode.gpu_share, mode.bandwidth_gb_s) if figure)
    told = [figure.source for figure in (*(figure for _, _, figure in figures_of(profile)), *modes)]
    told += [item.source for item in profile.tensorrt] + [refusal.source for refusal in profile.refused.values()]
    return list(dict.fromkeys(part for source in told for part in source.split("; ")))


def host_rows(profile: Profile) -> list[Row]:
    """What a probed host was like while it was measured; empty for other profiles."""
    state = profile.probed
    if state is None:
        return []
    caches = ", ".join(f"L{cache.level} {cache.kind} {cache.kib:,} KiB for {cache.shared_by}" for cache in state.caches)
    temperatures = ", ".join(f"{zone} {degrees:.1f}" for zone, degrees in state.temperatures_c.items())
    return [
        ("instruction sets", ", ".join(state.isa) or "none known"),
        ("system", f"{state.system}, Python {state.python}"),
        ("caches", caches or "not told"),
        ("governor", state.governor),
        ("highest clock", f"{state.clock_mhz:,.0f} MHz" if state.clock_mhz else "not told"),
        ("temperatures (degrees C)", temperatures or "not readable"),
        ("energy counters (RAPL)", state.energy_counters),
        ("load average before", f"{state.load_average:.2f}" if state.load_average >= 0 else "not told"),
    ]
