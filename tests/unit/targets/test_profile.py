"""Target profiles: each figure can be traced and recomputed, what cannot be done is refused with a way out, and bad files are named."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_latup.errors import InputError, MissingDependencyError, SpecError
from edge_latup.targets.describe import PRECISIONS, figures_of
from edge_latup.targets.profile import Figure, Profile, known_targets, load_profile, read_profile, write_profile

ASKED_FOR = {
    "rtx-3060-12gb", "jetson-orin-nano-8gb", "jetson-orin-nano-4gb", "jetson-orin-nx-16gb", "jetson-agx-orin-64gb", "jetson-xavier-nx",
    "jetson-agx-xavier", "jetson-nano-4gb", "x86-64-avx2", "x86-64-avx2-vnni", "x86-64-avx512-vnni", "x86-64-amx", "x86-64-laptop",
    "tesla-t4",
}  # fmt: skip
PROFILES = {name: load_profile(name) for name in known_targets()}
every = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())


def all_figures(profile: Profile) -> Iterator[Figure]:
    yield from (figure for _, _, figure in figures_of(profile))
    for mode in profile.power_modes:
        yield from (figure for figure in (mode.watts, mode.gpu_share, mode.bandwidth_gb_s) if figure)


def test_every_target_that_was_asked_for_is_there() -> None:
    assert set(PROFILES) == ASKED_FOR


@every
def test_a_file_is_named_as_its_profile(profile: Profile) -> None:
    assert PROFILES[profile.name] is profile


@every
def test_every_figure_and_every_refusal_has_an_address(profile: Profile) -> None:
    sources = [figure.source for figure in all_figures(profile)]
    sources += [item.source for item in profile.tensorrt] + [refusal.source for refusal in profile.refused.values()]
    assert [source for source in sources if not re.search(r"https://\S+\.\S+", source)] == []


@every
def test_nothing_shipped_claims_to_be_measured(profile: Profile) -> None:
    assert {figure.kind for figure in all_figures(profile)} <= {"published", "calculated"}
    assert profile.probed is None


@every
def test_a_calculated_figure_says_how(profile: Profile) -> None:
    assert [figure for figure in all_figures(profile) if figure.kind == "calculated" and not figure.note] == []


@every
def test_a_rate_is_what_its_note_multiplies(profile: Profile) -> None:
    rates = [*profile.gmacs.values(), *([profile.tf32_gmacs] if profile.tf32_gmacs else [])]
    for figure in rates:
        factors = [float(number) for number in re.findall(r"\d+(?:\.\d+)?(?= SMs| cores| CUDA| MACs| GHz| \(pairs)", figure.note)]
        assert math.prod(factors) == pytest.approx(figure.value, rel=1e-3), figure.note


@every
def test_fewer_bits_are_never_slower(profile: Profile) -> None:
    rates = [profile.gmacs[precision].value for precision in ("fp32", "bf16", "fp16", "int8") if precision in profile.gmacs]
    assert rates == sorted(rates)
    if profile.tf32_gmacs:
        assert profile.gmacs["fp32"].value <= profile.tf32_gmacs.value <= profile.gmacs["fp16"].value


# What NVIDIA advertises for the GPU alone, in 10^12 operations a second, and how many of these make one dense MAC: two operations, and
# another two where the figure counts zeros of 2:4 sparsity. Taken from the pages, not from the profiles.
ADVERTISED = [
    ("jetson-orin-nano-8gb", "int8", 67, 4), ("jetson-orin-nano-4gb", "int8", 34, 4), ("jetson-orin-nx-16gb", "int8", 77, 4),
    ("jetson-agx-orin-64gb", "int8", 170, 4), ("jetson-agx-orin-64gb", "fp32", 5.3, 2), ("jetson-agx-xavier", "int8", 22.6, 2),
    ("jetson-agx-xavier", "fp16", 11.3, 2), ("jetson-nano-4gb", "fp16", 0.472, 2), ("rtx-3060-12gb", "fp16", 101, 4),
    ("rtx-3060-12gb", "fp32", 12.7, 2), ("tesla-t4", "int8", 130, 2), ("tesla-t4", "fp16", 65, 2), ("tesla-t4", "fp32", 8.1, 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "precision", "trillions", "operations"), ADVERTISED)
def test_rates_are_the_dense_part_of_what_is_advertised(name: str, precision: str, trillions: float, operations: int) -> None:
    rate = next(figure.value for key, figure in PROFILES[name].gmacs.items() if key == precision)
    assert rate * operations / 1000 == pytest.approx(trillions, rel=0.02)


@every
def test_a_precision_is_either_stated_or_refused(profile: Profile) -> None:
    for precision in PRECISIONS:
        assert (precision in profile.gmacs) != (precision in profile.refused), precision


@every
def test_fp8_is_refused_everywhere_and_a_way_out_is_named(profile: Profile) -> None:
    assert "fp8" in profile.refused
    assert all(refusal.instead for refusal in profile.refused.values())


@every
def test_a_3d_network_is_never_placed_on_a_dla(profile: Profile) -> None:
    assert ("dla" in profile.refused) == bool(profile.compute_capability)
    if "dla" in profile.refused:
        assert "2-D" in profile.refused["dla"].reason


def test_what_old_boards_cannot_do() -> None:
    nano, xavier = PROFILES["jetson-nano-4gb"], PROFILES["jetson-xavier-nx"]
    assert {"int8", "bf16", "python-3.10", "tensorrt-10"} <= nano.refused.keys()
    assert {"bf16", "opset-18", "python-3.10"} <= xavier.refused.keys()
    assert "int8" in xavier.gmacs
    assert [item.newest_opset for item in xavier.tensorrt] == [13, 17]
    assert "tensorrt-11" in PROFILES["jetson-orin-nx-16gb"].refused
    assert "tensorrt-11" not in PROFILES["jetson-agx-orin-64gb"].refused
    assert [item.tensorrt for item in PROFILES["jetson-agx-orin-64gb"].tensorrt][-1].startswith("11.")


@every
def test_power_modes_never_promise_more_than_the_peak(profile: Profile) -> None:
    shares = [mode.gpu_share.value for mode in profile.power_modes if mode.gpu_share]
    assert all(0 < share <= 1 for share in shares)
    assert shares == sorted(shares), "a mode with more watts has no smaller share"
    assert all(mode.bandwidth_gb_s.value < profile.bandwidth_gb_s.value for mode in profile.power_modes if mode.bandwidth_gb_s)
    assert bool(profile.power_modes) == (profile.kind == "jetson")


@every
def test_a_profile_survives_being_written(profile: Profile, tmp_path: Path) -> None:
    write_profile(profile, tmp_path / "copy.toml")
    assert load_profile(str(tmp_path / "copy.toml")) == profile


def test_writing_without_its_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    with pytest.raises(MissingDependencyError) as caught:
        write_profile(PROFILES["x86-64-amx"], tmp_path / "p.toml")
    assert "pip install" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_names_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        load_profile("jetson-orin")
    assert "jetson-orin" in caught.value.message
    assert all(name in caught.value.hint for name in ASKED_FOR)


GOOD = """
name = "mine"
title = "Mine"
kind = "x86"
processor = "A CPU"
architecture = "x86-64"
isa = "avx2"
unified_memory = false
runtimes = ["openvino"]
gmacs.fp32 = { value = 1, kind = "measured", source = "here" }
bandwidth_gb_s = { value = 1, kind = "measured", source = "here" }
memory_gib = { value = 1, kind = "measured", source = "here" }
"""
BROKEN = {
    "not TOML": ("name = mine", "is not TOML"),
    "a key that is not known": (GOOD.replace("unified_memory", "unified_memori"), "did you mean 'unified_memory'"),
    "an unknown figure key": (GOOD.replace("gmacs.fp32 = { value", "gmacs.fp32 = { valu"), "gmacs.fp32"),
    "a precision that is not known": (GOOD + 'gmacs.fp4 = { value = 1, kind = "measured", source = "here" }', "gmacs.fp4"),
    "a rate of nothing": (GOOD.replace("gmacs.fp32 = { value = 1", "gmacs.fp32 = { value = 0"), "gmacs.fp32.value"),
    "a figure without a source": (GOOD.replace('kind = "measured", source = "here" }\nmemory', 'kind = "measured" }\nmemory'), "source"),
    "no FP32 rate": (GOOD.replace("gmacs.fp32", "gmacs.int8"), "gmacs must state fp32"),
    "a CPU without an instruction set": (GOOD.replace('isa = "avx2"\n', ""), "isa is stated"),
    "a CPU with a compute capability": (GOOD + 'compute_capability = "8.6"', "compute_capability is stated"),
    "no runtime": (GOOD.replace('["openvino"]', "[]"), "runtimes"),
}


def test_a_profile_of_ones_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    assert load_profile(str(tmp_path / "mine.toml")).name == "mine"


@pytest.mark.parametrize(("text", "told"), BROKEN.values(), ids=BROKEN.keys())
def test_a_bad_file_is_named_with_its_key(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_profile(path)
    assert str(path) in caught.value.message
    assert told in caught.value.message


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_profile(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="is not TOML"):
        load_profile(str(tmp_path / "binary.toml"))


def test_a_document_is_marked_as_not_read_everywhere_or_nowhere() -> None:
    marks: dict[str, set[bool]] = {}
    for profile in PROFILES.values():
        figures = [*profile.gmacs.values(), profile.bandwidth_gb_s, profile.memory_gib]
        for part in (part for figure in figures for part in figure.source.split("; ")):
            name, _, address = part.rpartition(", ")
            marks.setdefault(address, set()).add(name.endswith("(not read)"))
    assert {True, False} <= {mark for seen in marks.values() for mark in seen}
    assert not [address for address, seen in marks.items() if len(seen) > 1]
