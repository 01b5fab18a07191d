"""Instruction sets: what can be emulated where, and the read-back that refuses the name to whatever went beyond it."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.errors import MissingDependencyError
from edge_latup.targets.isa import LEVELS, LIMITS, Dispatch, IsaName, check_dispatch, environment, read_dispatch, refusal, title

ZEN5 = frozenset(["avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16"])
SKYLAKE = frozenset(["avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq"])
ALDER_LAKE = frozenset(["avx2", "fma", "avx_vnni"])
PERMITTED: dict[IsaName, set[str]] = {
    "avx2": {"sse41", "avx", "avx2"},
    "avx2-vnni": {"sse41", "avx", "avx2", "avx2_vnni"},
    "avx512": {"sse41", "avx", "avx2", "avx512_core"},
    "avx512-vnni": {"sse41", "avx", "avx2", "avx512_core", "avx512_core_vnni"},
}
"""After oneDNN's documentation of its partial order; VEX VNNI is a branch beside AVX-512."""
ALL_SETS = sorted(
    set.union(*PERMITTED.values()) | {"avx2_vnni_2", "avx512_core_bf16", "avx512_core_fp16", "avx512_core_amx", "avx10_1_512"}
)
LOG = """\
onednn_verbose,v1,info,oneDNN v3.13.0 (commit 1289c3b)
onednn_verbose,v1,info,cpu,runtime:threadpool,nthr:2
onednn_verbose,v1,info,cpu,isa:Intel AVX2 with Intel DL Boost
onednn_verbose,v1,primitive,info,template:operation,engine,primitive,implementation,prop_kind,memory_descriptors,attributes
onednn_verbose,v1,primitive,create:cache_miss,cpu,reorder,jit:uni,undef,src:u8::blocked:abcde::f0 dst:u8,,,1x3x16x16x16,0.11
onednn_verbose,v1,primitive,create:cache_miss,cpu,convolution,jit_uni_int8:avx2_vnni,forward_inference,src:u8 wei:s8,,,mb1,0.2
onednn_verbose,v1,primitive,create:cache_hit,cpu,convolution,jit_uni_int8:avx2_vnni,forward_inference,src:u8 wei:s8,,,mb1,0.2
onednn_verbose,v1,primitive,create:cache_miss,cpu,pooling,jit_int:avx2,forward_inference,src:u8,,alg:pooling_max,mb1,0.1
onednn_verbose,v1,primitive,create:cache_miss,cpu,inner_product,x64:gemm_s8u8s32:jit,forward_inference,src:u8,,,mb1,0.1
another library's line, that says avx512
"""


@pytest.mark.parametrize("isa", LEVELS)
def test_both_variables_get_the_same_value(isa: IsaName) -> None:
    values = {environment(isa)[name] for name in LIMITS}
    assert values == {LEVELS[isa].value}


def test_native_rows_are_not_limited() -> None:
    assert set(environment("native")) == {"ONEDNN_VERBOSE"}
    assert (title("native"), title("avx512-vnni")) == ("native", "emulated AVX-512-VNNI")


@pytest.mark.parametrize(
    ("flags", "possible"),
    [
        (ZEN5, {"avx2", "avx2-vnni", "avx512", "avx512-vnni"}),
        (SKYLAKE, {"avx2", "avx512"}),
        (ALDER_LAKE, {"avx2", "avx2-vnni"}),
        (frozenset({"avx"}), set()),
        (frozenset(), set()),
    ],
)
def test_nothing_above_the_host_can_be_emulated(flags: frozenset[str], possible: set[str]) -> None:
    assert {isa for isa in LEVELS if refusal(isa, "openvino", flags) is None} == possible
    assert refusal("native", "openvino", flags) is None


def test_the_missing_feature_is_named() -> None:
    assert refusal("avx512-vnni", "openvino", SKYLAKE) == (
        "AVX-512-VNNI cannot be emulated: this CPU lacks avx512_vnni, and nothing above it can be made up"
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "pytorch", "one that comes later"])
def test_runtimes_that_do_not_obey_are_never_labelled(runtime: str) -> None:
    for isa in LEVELS:
        assert "cannot be emulated" in (refusal(isa, runtime, ZEN5) or "")  # type: ignore[arg-type]
    assert refusal("native", runtime, ZEN5) is None  # type: ignore[arg-type]


def test_onnxruntime_holds_no_name_of_the_variables() -> None:
    """What `NOT_EMULATED` says of it, looked up in the library that is installed; OpenVINO's holds both, which shows that looking works."""
    ort, ov = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    assert not _holds(Path(ort.__file__).parent / "capi", b"MAX_CPU_ISA|CPU_MAX_ISA")
    assert _holds(Path(ov.__file__).parent / "libs", b"MAX_CPU_ISA")


def _holds(folder: Path, pattern: bytes) -> bool:
    for library in (path for path in folder.iterdir() if ".so" in path.name and path.stat().st_size):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if re.search(pattern, content):
                return True
    return False


def test_what_onednn_wrote_is_read() -> None:
    dispatch = read_dispatch(LOG.splitlines())
    assert dispatch == Dispatch(limit="Intel AVX2 with Intel DL Boost", primitives={"any": 2, "avx2_vnni": 2, "avx2": 1})
    check_dispatch("avx2-vnni", dispatch, {"jit_avx2_I8": 20, "ref_I8": 4, "jit_uni_f32": 3, "unknown_f32": 1, "jit_sse42_f32": 1})


def test_a_process_that_told_nothing_is_not_believed() -> None:
    with pytest.raises(MissingDependencyError, match="does not say what its limit is"):
        check_dispatch("avx2", read_dispatch(["warming up"]), {"jit_avx2_f32": 1})


def test_a_limit_that_was_not_taken_is_refused() -> None:
    """As when the value of the variable is not known to the library, which then limits nothing."""
    dispatch = Dispatch(limit="Intel AVX-512 with Intel DL Boost and bfloat16 support", primitives={"avx2": 3})
    with pytest.raises(MissingDependencyError, match="held to AVX2, oneDNN says that its limit is 'Intel AVX-512"):
        check_dispatch("avx2", dispatch, {"jit_avx2_f32": 1})


@pytest.mark.parametrize(
    ("isa", "kernel"),
    [
        ("avx2", "jit_avx512_f32"),
        ("avx2-vnni", "brgconv_avx512_1x1_I8"),
        ("avx512", "brgconv_avx512_amx_I8"),
        ("avx512-vnni", "jit_avx512_amx_bf16"),
        ("avx512", "gemm_mlas_f32"),
    ],
)
def test_an_executed_kernel_above_the_set_is_refused(isa: IsaName, kernel: str) -> None:
    dispatch = Dispatch(limit=LEVELS[isa].told, primitives={"avx2": 3})
    with pytest.raises(MissingDependencyError, match=f"kernels that are not of it: 2 x {kernel}"):
        check_dispatch(isa, dispatch, {"jit_avx2_f32": 7, kernel: 2})
    check_dispatch("native", dispatch, {kernel: 2})


@given(isa=st.sampled_from(sorted(LEVELS)), made=st.dictionaries(st.sampled_from([*ALL_SETS, "any"]), st.integers(1, 30)))
def test_only_primitives_of_the_set_and_below_pass(isa: IsaName, made: dict[str, int]) -> None:
    dispatch = Dispatch(limit=LEVELS[isa].told, primitives=made)
    beyond = set(made) - PERMITTED[isa] - {"any"}
    if not beyond:
        check_dispatch(isa, dispatch, {})
        return
    with pytest.raises(MissingDependencyError) as caught:
        check_dispatch(isa, dispatch, {})
    assert all(f"{made[name]} primitives for {name}" in caught.value.message for name in beyond)
