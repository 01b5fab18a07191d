"""The logic around TensorRT, on a double that computes with ONNX Runtime: what is asked of the builder, what is kept, what is refused.

The double has only names that NVIDIA's modules have (contracts/test_tensorrt_api.py). Nothing here was executed by TensorRT.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from fake_tensorrt import MIB, Behaviour
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_spec

from edge_latup.artifact import Artifact, write_artifact
from edge_latup.errors import ArtifactError, EdgeLatupError, InputError, MissingDependencyError
from edge_latup.manifest import AuditSummary, Manifest, Mismatch
from edge_latup.runtimes import open_session, tensorrt_engine, tensorrt_worker
from edge_latup.runtimes.base import SessionOptions
from edge_latup.runtimes.tensorrt_cuda import DeviceMemoryError, available, kernel_driver, workspace_bytes
from edge_latup.runtimes.tensorrt_log import build_failure, explain_skipped, skipped_tactics
from edge_latup.runtimes.tensorrt_proof import prove_precision

SIDE = 8
VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106")


def made(folder: Path, *, batch: int = 1, free: bool = False, quantized: bool = False, **changes: Any) -> Artifact:
    """An ONNX artifact for TensorRT: one 3-D convolution, 3 channels to 4; `free`: its spatial size is."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from unfused import quantize_inputs

    weight = np.random.default_rng(0).normal(size=(4, 3, 1, 1, 1)).astype(np.float32) / 8
    sides: list[Any] = ["d", "h", "w"] if free else [SIDE] * 3
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="enc", kernel_shape=[1, 1, 1])], "one",
        [value("x", TensorProto.FLOAT, [batch, 3, *sides])], [value("y", TensorProto.FLOAT, [batch, 4, *sides])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if quantized:
        quantize_inputs(model)
    fields: dict[str, Any] = {
        "name": folder.name, "spec": tiny_spec(network=None, spatial={"kind": "centre-crop", "size": (SIDE,) * 3}), "format": "onnx",
        "runtimes": ("tensorrt",), "precision": "int8" if quantized else "fp32", "storage": "int8" if quantized else "float32",
        "input_shape": (batch, 3, *([-1] * 3 if free else [SIDE] * 3)),
    }  # fmt: skip
    return write_artifact(folder, Manifest.model_validate(fields | changes), lambda out: onnx.save(model, out / "model.onnx"))


Install = Callable[..., Behaviour]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put the double in place, with the build in this process instead of one of its own."""

    def in_this_process(module: str, arguments: list[str], who: str) -> None:
        assert module == "edge_latup.runtimes.tensorrt_worker"
        request = tensorrt_worker.read_record(tensorrt_worker.BuildRequest, Path(arguments[0]))
        tensorrt_worker.write_record(tensorrt_worker.build(request), Path(arguments[1]))

    monkeypatch.setattr(tensorrt_engine, "run_fresh", in_this_process)
    return lambda **does: fake_tensorrt.install(monkeypatch, Behaviour(**does))


def options(tmp_path: Path, profile: bool = False, **given: str) -> SessionOptions:
    return SessionOptions(
        cache_dir=tmp_path / "engines", profile=profile, runtime_options={name.replace("_", "-"): value for name, value in given.items()}
    )


def question(batch: int = 1) -> np.ndarray:
    return np.random.default_rng(3).random((batch, 3, SIDE, SIDE, SIDE), dtype=np.float32)


def refusal(artifact: Artifact, settings: SessionOptions) -> EdgeLatupError:
    with pytest.raises(EdgeLatupError) as caught:
        open_session(artifact, "tensorrt", settings)
    assert caught.value.hint
    return caught.value


def files(tmp_path: Path) -> list[str]:
    return sorted(path.suffix for path in (tmp_path / "engines").iterdir())


@pytest.mark.parametrize("version", VERSIONS)
def test_it_builds_tests_keeps_and_runs(install: Install, tmp_path: Path, version: str) -> None:
    import onnxruntime as ort

    does = install(version=version)
    artifact = made(tmp_path / "a")
    with open_session(artifact, "tensorrt", options(tmp_path)) as session:
        answer, again = session.infer(question()), session.infer(question() / 2)
        assert session.input_shape == (1, 3, SIDE, SIDE, SIDE)
        assert session.float_precision == "f32"
        assert [(kernel.name, kernel.precision) for kernel in session.executed_kernels()] == [("enc", "f32")]
        assert session.activation_bytes() == 123 * MIB
        assert session.audit().summary.mismatched == 0
    expected = ort.InferenceSession(str(artifact.model_path), providers=["CPUExecutionProvider"]).run(None, {"x": question()})[0]
    np.testing.assert_array_equal(answer, expected)
    assert not np.array_equal(answer, again)
    assert does.told("create_network") == [0 if version.startswith("11") else 2]
    assert does.told("clear_flag") == ["TF32"]
    assert does.told("set_flag") == does.told("set_shape") == []
    assert files(tmp_path) == [".cache", ".engine", ".json"]
    assert does.memory == {}, "every buffer is given back"


def test_a_kept_engine_is_not_built_again(install: Install, tmp_path: Path) -> None:
    does = install()
    artifact = made(tmp_path / "a")
    for _ in range(2):
        open_session(artifact, "tensorrt", options(tmp_path)).__exit__(None, None, None)
    assert len(does.told("build")) == 1
    record = json.loads(next((tmp_path / "engines").glob("*.json")).read_text())
    assert record["artifact"] == artifact.digest
    assert record["self_test"] == {"rows": 3, "max_abs": 0.0, "tolerance": 1e-5, "permuted": False}
    assert record["gpu"] == "NVIDIA GeForce RTX 3060 (28 multiprocessors, 12288 MiB)"
    assert record["build"]["workspace_bytes"] == 6000 * MIB - 512 * MIB - 2 * artifact.model_path.stat().st_size - 4 * 7 * SIDE**3


@pytest.mark.parametrize(
    "change",
    [{"version": "10.15.0"}, {"integrated_name": "NVIDIA GeForce RTX 3060 Ti"}, {"processors": 30}, {"driver": 13000}],
    ids=["TensorRT", "GPU", "processors", "driver"],
)
def test_another_machine_gets_an_engine_of_its_own(install: Install, tmp_path: Path, change: dict[str, Any]) -> None:
    artifact = made(tmp_path / "a")
    for does in ({}, change):
        recorded = install(**does)
        open_session(artifact, "tensorrt", options(tmp_path)).__exit__(None, None, None)
        assert len(recorded.told("build")) == 1


def test_another_option_or_artifact_gets_an_engine_of_its_own(install: Install, tmp_path: Path) -> None:
    does = install()
    asked = [(made(tmp_path / "a"), {}), (made(tmp_path / "b", batch=2), {}), (made(tmp_path / "c"), {"tf32": "true"})]
    for artifact, chosen in asked:
        open_session(artifact, "tensorrt", options(tmp_path, **chosen)).__exit__(None, None, None)
    assert len(does.told("build")) == 3


def test_options_reach_the_builder(install: Install, tmp_path: Path) -> None:
    does = install()
    given = {"version_compatible": "true", "hardware": "ampere-plus", "tf32": "true", "optimisation_level": "5", "workspace_mib": "256"}
    open_session(made(tmp_path / "a"), "tensorrt", options(tmp_path, **given)).__exit__(None, None, None)
    config = does.told("build")[0]
    assert (config.hardware_compatibility_level.name, config.builder_optimization_level) == ("AMPERE_PLUS", 5)
    assert config.profiling_verbosity.name == "DETAILED"
    assert does.told("set_flag") == ["VERSION_COMPATIBLE"]
    assert does.told("clear_flag") == []
    assert does.told("set_memory_pool_limit") == [("WORKSPACE", 256 * MIB)]
    assert does.told("deserialize") == [True, True], "a version-compatible plan holds code"


@pytest.mark.parametrize(
    ("given", "message"),
    [({"fp16": "true"}, "TensorRT has no option 'fp16'"), ({"hardware": "turing"}, "cannot have this value: hardware=turing"),
     ({"optimisation_level": "9"}, "cannot have this value")],
)  # fmt: skip
def test_an_unknown_option_is_refused(install: Install, tmp_path: Path, given: dict[str, str], message: str) -> None:
    install()
    assert message in refusal(made(tmp_path / "a"), options(tmp_path, **given)).message


def test_a_level_that_this_version_has_not_is_refused(install: Install, tmp_path: Path) -> None:
    install(version="10.3.0")
    told = refusal(made(tmp_path / "a"), options(tmp_path, hardware="same-compute-capability"))
    assert "TensorRT 10.3.0 has no hardware compatibility" in told.message
    assert files(tmp_path) == []


def test_a_free_size_is_fixed_by_one_profile(install: Install, tmp_path: Path) -> None:
    does = install()
    asked = SessionOptions(cache_dir=tmp_path / "engines", input_size=(16, 8, 8))
    with open_session(made(tmp_path / "a", free=True), "tensorrt", asked) as session:
        assert session.input_shape == (1, 3, 16, 8, 8)
        assert session.infer(np.ones((1, 3, 16, 8, 8), np.float32)).shape == (1, 4, 16, 8, 8)
    assert does.told("set_shape") == [("x", *[(1, 3, 16, 8, 8)] * 3)]


def test_a_fixed_size_is_not_changed(install: Install, tmp_path: Path) -> None:
    install()
    with pytest.raises(InputError, match=r"takes \(1, 3, 8, 8, 8\), not \(1, 3, 16, 8, 8\)"):
        open_session(made(tmp_path / "a"), "tensorrt", SessionOptions(cache_dir=tmp_path / "engines", input_size=(16, 8, 8)))


def test_another_float_precision_than_the_file_has_is_refused(install: Install, tmp_path: Path) -> None:
    install()
    with pytest.raises(MissingDependencyError, match="what the graph's types say, fp32, not in fp16"):
        open_session(made(tmp_path / "a"), "tensorrt", SessionOptions(cache_dir=tmp_path / "engines", float_precision="fp16"))


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_an_engine_that_is_not_the_recorded_one_is_never_loaded(install: Install, tmp_path: Path, damage: str) -> None:
    does = install()
    artifact = made(tmp_path / "a")
    open_session(artifact, "tensorrt", options(tmp_path)).__exit__(None, None, None)
    engine = next((tmp_path / "engines").glob("*.engine"))
    loaded = len(does.told("deserialize"))
    engine.unlink() if damage == "gone" else engine.write_bytes(engine.read_bytes() + b"code")
    told = refusal(artifact, options(tmp_path))
    assert {"changed": "is not the engine that was built here", "gone": "cannot be read"}[damage] in told.message
    assert len(does.told("deserialize")) == loaded
    assert str(next((tmp_path / "engines").glob("*.json"))) in told.hint


def test_a_folder_that_others_can_write_to_is_refused(install: Install, tmp_path: Path) -> None:
    install()
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines").chmod(0o777)
    assert "can be written by others" in refusal(made(tmp_path / "a"), options(tmp_path)).message


@pytest.mark.parametrize(
    ("quantized", "kernel", "message"),
    [
        (True, "FP32", "asked for int8 and runs 100.0 % of its multiply-accumulates in FP32"),
        (True, "Half", "asked for int8 and runs no layer in it"),
        (False, "Half", "100.0 % of its multiply-accumulates narrower than the graph says"),
    ],
)
def test_precision_is_read_back(install: Install, tmp_path: Path, quantized: bool, kernel: str, message: str) -> None:
    install(usual=kernel)
    assert message in refusal(made(tmp_path / "a", quantized=quantized), options(tmp_path)).message
    assert files(tmp_path) == [".cache"], "a refused engine is not kept"


def summary_of(*layers: tuple[str, str | None, float]) -> AuditSummary:
    """(declared, executed, share of the multiply-accumulates) of each layer."""
    executed: dict[str, float] = {}
    for _, ran, share in layers:
        executed |= {ran: executed.get(ran, 0) + share} if ran else {}
    wrong = [
        Mismatch(layer=f"l{i}", declared=asked, executed=ran, macs=share) for i, (asked, ran, share) in enumerate(layers) if asked != ran
    ]
    int8 = sum(share for asked, _, share in layers if asked == "int8")
    return AuditSummary(
        runtime="tensorrt", declared_int8=int8, executed_int8=executed.get("int8", 0), executed=executed,
        mismatched=sum(layer.macs for layer in wrong), mismatches=tuple(wrong),
    )  # fmt: skip


def test_tf32_counts_as_fp32_only_where_it_was_allowed() -> None:
    ran = summary_of(("fp32", "tf32", 1.0))
    with pytest.raises(ArtifactError, match="narrower than the graph says") as caught:
        prove_precision(ran, "fp32", tf32=False)
    assert "--tf32" in caught.value.hint
    assert "ran in tf32" in prove_precision(ran, "fp32", tf32=True)[0]


def test_a_layer_that_fell_back_to_the_float_part_is_told_not_refused() -> None:
    """A transposed convolution that stays FP16 costs speed; it is still the same function."""
    notes = prove_precision(summary_of(("int8", "int8", 0.9), ("int8", "fp16", 0.1)), "int8", tf32=False)
    assert notes == ["declared INT8 100.0 % of MACs, executed INT8 90.0 %; 1 layer declared int8 ran in fp16: l1"]


def test_what_the_inspector_does_not_name_is_told_as_not_proven() -> None:
    notes = prove_precision(summary_of(("int8", "int8", 0.5), ("int8", None, 0.5)), "int8", tf32=False)
    assert "for 50.0 % of the multiply-accumulates the inspector names no kernel" in notes[-1]


@given(st.floats(0, 0.019))
def test_a_sliver_in_another_precision_is_within_the_tolerance(share: float) -> None:
    assert prove_precision(summary_of(("fp16", "fp16", 1 - share), ("fp16", "fp32", share)), "fp16", tf32=False) == []


def test_an_int8_engine_that_runs_int8_is_kept(install: Install, tmp_path: Path) -> None:
    install(kernels={"enc": "Int8"})
    with open_session(made(tmp_path / "a", quantized=True), "tensorrt", options(tmp_path)) as session:
        assert session.audit().summary.executed_int8 == 1
        assert session.float_precision == "i8"


@pytest.mark.parametrize(("does", "batch"), [({"drifting": 1e-3}, 1), ({"by_row": 1e-3}, 2), ({"drifting": float("nan")}, 1)])
def test_an_engine_with_several_answers_is_refused(install: Install, tmp_path: Path, does: dict[str, float], batch: int) -> None:
    install(**does)
    told = refusal(made(tmp_path / "a", batch=batch), options(tmp_path)).message
    assert "different answers to the same input" in told or "NaN" in told
    assert files(tmp_path) == [".cache"]


def test_rows_are_asked_in_another_order_too(install: Install, tmp_path: Path) -> None:
    install()
    open_session(made(tmp_path / "a", batch=3), "tensorrt", options(tmp_path)).__exit__(None, None, None)
    record = json.loads(next((tmp_path / "engines").glob("*.json")).read_text())
    assert record["self_test"] == {"rows": 9, "max_abs": 0.0, "tolerance": 1e-5, "permuted": True}


def test_timing_is_kept_and_one_of_another_gpu_is_left_aside(install: Install, tmp_path: Path) -> None:
    does = install()
    open_session(made(tmp_path / "a"), "tensorrt", options(tmp_path)).__exit__(None, None, None)
    open_session(made(tmp_path / "b", batch=2), "tensorrt", options(tmp_path)).__exit__(None, None, None)
    assert does.told("create_timing_cache") == [b"", b"+"]
    next((tmp_path / "engines").glob("*.cache")).write_bytes(b"foreign")
    open_session(made(tmp_path / "c", batch=3), "tensorrt", options(tmp_path)).__exit__(None, None, None)
    assert does.told("create_timing_cache")[2:] == [b"foreign", b""]
    assert next((tmp_path / "engines").glob("*.cache")).read_bytes() == b"+"


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (("Error Code 10: Internal Error (Could not find any implementation for node enc + relu.)",), r"no kernel for enc \+ relu of"),
        (("Error Code 2: OutOfMemory (no further information)",), "ran out of memory while TensorRT built"),
        (("something else",), "cannot build .*something else"),
        ((), "cannot build .*it gave no reason"),
    ],
)
def test_a_build_that_fails_says_why(install: Install, tmp_path: Path, errors: tuple[str, ...], message: str) -> None:
    install(builds=False, errors=errors)
    with pytest.raises(EdgeLatupError, match=message):
        open_session(made(tmp_path / "a"), "tensorrt", options(tmp_path))


def test_what_the_parser_refuses_names_the_node(install: Install, tmp_path: Path) -> None:
    install(parses=False)
    assert "refuses" in (told := refusal(made(tmp_path / "a"), options(tmp_path)).message)
    assert "Einsum attention: no importer registered" in told


def test_an_engine_that_does_not_load_or_fit_is_refused(install: Install, tmp_path: Path) -> None:
    artifact = made(tmp_path / "a")
    install(loads=False, errors=("The engine plan file is not compatible with this version of TensorRT",))
    assert "cannot load" in refusal(artifact, options(tmp_path)).message
    install(context=False)
    assert "no memory left for the engine's activations" in refusal(artifact, options(tmp_path)).message
    does = install(fails="cudaMalloc")
    assert "cudaErrorMemoryAllocation" in refusal(artifact, options(tmp_path)).message
    assert len(does.told("cudaStreamDestroy")) == 1


def test_a_kernel_that_fails_while_it_runs_is_an_error(install: Install, tmp_path: Path) -> None:
    does = install()
    with open_session(made(tmp_path / "a"), "tensorrt", options(tmp_path)) as session:
        does.fails = "cudaStreamSynchronize"
        with pytest.raises(MissingDependencyError, match="finishing the inference: cudaErrorIllegalAddress"):
            session.infer(question())


def test_another_shape_is_refused_before_the_gpu_sees_it(install: Install, tmp_path: Path) -> None:
    does = install()
    with open_session(made(tmp_path / "a"), "tensorrt", options(tmp_path)) as session:
        runs = len(does.told("execute"))
        with pytest.raises(InputError, match="the model takes float32"):
            session.infer(question()[:, :, :4])
        assert len(does.told("execute")) == runs


def test_profiled_layers_have_their_time(install: Install, tmp_path: Path) -> None:
    install()
    with open_session(made(tmp_path / "a"), "tensorrt", options(tmp_path, profile=True)) as session:
        session.infer(question())
        assert (session.audit().milliseconds, session.audit().layers[0].time_share) == (2.0, 1.0)


def test_skipped_tactics_are_counted_and_explained(install: Install, tmp_path: Path) -> None:
    line = "Skipping tactic 0x0000000000000003 due to insufficient memory on requested size of 9126805504 detected for tactic 0x3."
    install(
        warnings=(
            line,
            line,
            "a layer was cast",
            "Tactic Device request: 8704MB Available: 5123MB.",
        )
    )
    open_session(made(tmp_path / "a"), "tensorrt", options(tmp_path)).__exit__(None, None, None)
    record = json.loads(next((tmp_path / "engines").glob("*.json")).read_text())
    assert record["build"]["skipped_tactics"] == 2
    assert "2 tactics wanted more than" in record["notes"][0]
    assert "correct, maybe slower" in record["notes"][0]
    assert explain_skipped(0, MIB) == ""
    assert skipped_tactics(["Detected 1 inputs"]) == 0


def test_too_little_memory_is_said_in_figures_before_the_build(install: Install, tmp_path: Path) -> None:
    does = install(free=550 * MIB)
    told = refusal(made(tmp_path / "a"), options(tmp_path))
    assert told.exit_code == 3
    assert "550 MiB are free" in told.message
    assert "margin of 512" in told.message
    assert does.told("build") == []


def test_where_the_engine_does_not_tell_its_memory_neither_do_we(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    import tensorrt as trt

    monkeypatch.delattr(trt.ICudaEngine, "device_memory_size_v2")
    with open_session(made(tmp_path / "a"), "tensorrt", options(tmp_path)) as session:
        assert session.activation_bytes() is None


@pytest.mark.parametrize("unified", [False, True])
def test_the_workspace_is_what_is_free_less_a_margin_and_the_model(unified: bool) -> None:
    margin = (1024 if unified else 512) * MIB
    assert workspace_bytes(4000 * MIB, unified=unified, needed=100 * MIB) == 3900 * MIB - margin
    assert workspace_bytes(4000 * MIB, unified=unified, needed=100 * MIB, asked=MIB) == MIB
    with pytest.raises(DeviceMemoryError, match="4,000 MiB are free.*too little for 3,950 MiB of workspace"):
        workspace_bytes(4000 * MIB, unified=unified, needed=100 * MIB, asked=3950 * MIB)


def test_unified_memory_counts_what_linux_would_give_back(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:        7802848 kB\nMemFree:          312000 kB\nMemAvailable:    5242880 kB\n")
    assert available(1, tmp_path / "meminfo") == 5120 * MIB
    assert available(7, tmp_path / "missing") == 7


def test_the_drivers_version_is_read_where_the_kernel_tells_it(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n")
    assert kernel_driver((tmp_path / "none", tmp_path / "version")) == "550.54.15"
    assert kernel_driver((tmp_path / "none",)) == "unknown driver"


def test_an_older_tensorrt_is_refused_with_the_tool_that_builds_there(install: Install) -> None:
    install(version="8.5.2.2")
    with pytest.raises(MissingDependencyError, match=r"TensorRT 8.5.2.2 is installed; engines are built with 10.3") as caught:
        tensorrt_worker.network_flags()
    assert "trtexec" in caught.value.hint


def test_the_error_of_a_build_that_gave_no_reason_is_still_an_error() -> None:
    assert isinstance(build_failure((), MIB, "m.onnx"), ArtifactError)
