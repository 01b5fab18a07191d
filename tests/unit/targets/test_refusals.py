"""What a target cannot do is refused with the reason and the next best option."""

from __future__ import annotations

import pytest

from edge_latup.errors import InputError
from edge_latup.manifest import Precision
from edge_latup.runtimes.tensorrt_limits import NEWEST_OPSET
from edge_latup.targets.engine_limits import target_facts
from edge_latup.targets.profile import known_targets, load_profile
from edge_latup.targets.refusals import require, require_precision


def refused(target: str, what: str) -> InputError:
    with pytest.raises(InputError) as caught:
        require(load_profile(target), what)
    assert caught.value.message.startswith(f"{target} refuses {what}: ")
    assert caught.value.hint
    return caught.value


def test_a_3d_network_on_a_dla() -> None:
    error = refused("jetson-agx-orin-64gb", "dla")
    assert "2-D" in error.message
    assert "GPU" in error.hint


def test_fp8_on_compute_capability_86() -> None:
    error = refused("rtx-3060-12gb", "fp8")
    assert "8.9" in error.message
    assert "8.6" in error.message
    assert "INT8" in error.hint


def test_tensorrt_11_on_an_orin_nano() -> None:
    assert "TensorRT 10.x" in refused("jetson-orin-nano-8gb", "tensorrt-11").hint
    require(load_profile("jetson-agx-orin-64gb"), "tensorrt-11")


@pytest.mark.parametrize(
    ("target", "precision"), [("jetson-nano-4gb", "int8"), ("jetson-xavier-nx", "bf16"), ("tesla-t4", "bf16"), ("x86-64-avx2", "fp16")]
)
def test_a_precision_without_arithmetic(target: str, precision: Precision) -> None:
    with pytest.raises(InputError) as caught:
        require_precision(load_profile(target), precision)
    assert caught.value.hint


@pytest.mark.parametrize("target", known_targets())
def test_every_stated_precision_is_accepted(target: str) -> None:
    profile = load_profile(target)
    assert profile.gmacs
    for precision in profile.gmacs:
        require_precision(profile, precision)  # raises nothing


def test_a_precision_that_a_profile_does_not_mention() -> None:
    profile = load_profile("x86-64-avx2").model_copy(update={"refused": {}})
    with pytest.raises(InputError, match="states no rate in bf16") as caught:
        require_precision(profile, "bf16")
    assert caught.value.hint == "it computes in fp32, int8"


@pytest.mark.parametrize("target", known_targets())
def test_profiles_and_limits_state_the_same_newest_opset(target: str) -> None:
    """Profiles state it for what builds no engine here (TensorRT 8); from 10 on the limits alone know."""
    for generation in load_profile(target).tensorrt:
        facts = target_facts(load_profile(target), generation.tensorrt)
        known = next(opset for first, opset in NEWEST_OPSET if facts.version >= first)
        assert generation.newest_opset == (known if facts.version < (10, 0) else None)
