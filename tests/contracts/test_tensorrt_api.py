"""Our calls to TensorRT and CUDA against NVIDIA's genuine Python bindings: what the checker holds is what the wheels themselves say.

For each generation the classes, members and signatures of the real modules become type stubs, and mypy checks our modules against them:
a name that is not there, a wrong argument or a wrong type is an error. What differs between generations is called for real, in a process
that imports the real module. No GPU is needed and nothing is built.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fake_tensorrt
import nvidia_bindings
import pytest
from nvidia_bindings import Generation

import edge_latup
from edge_latup.runtimes.tensorrt_options import HARDWARE_LEVELS, STRONG_ONLY

PACKAGE = Path(edge_latup.__file__).parent
FOREIGN = ("tensorrt", "cuda")
CHECKED = ("tensorrt_worker", "tensorrt_session", "tensorrt_cuda", "tensorrt_log", "tensorrt_engine", "tensorrt")
"""Modules of ours that import TensorRT or cuda-python."""
CONFIG = """
[mypy]
strict = True
follow_imports = skip
ignore_missing_imports = True
explicit_package_bases = True
warn_unused_ignores = False
warn_return_any = False
disallow_subclassing_any = False
disallow_any_generics = False
disallow_untyped_decorators = False
[mypy-tensorrt.*]
follow_imports = normal
ignore_errors = True
[mypy-cuda.*]
follow_imports = normal
ignore_errors = True
"""


@pytest.fixture(scope="module", params=list(nvidia_bindings.pinned()))
def generation(request: pytest.FixtureRequest) -> Generation:
    return nvidia_bindings.fetched(request.param)


@pytest.fixture(scope="module")
def stubs(generation: Generation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("stubs")
    done = generation.python(nvidia_bindings.REQUIREMENTS.with_name("typed_bindings.py").read_text(encoding="utf-8"), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def complaints(stubs: Path, *files: Path) -> list[str]:
    """Mypy's errors about files that use the bindings."""
    config = stubs / "mypy.ini"
    config.write_text(CONFIG, encoding="ascii")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(stubs / "cache"), *map(str, files)],
        cwd=stubs, env=os.environ | {"MYPYPATH": str(stubs / "stubs")}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error:" in line]


def test_there_is_one_of_each_generation_and_the_oldest_that_is_supported() -> None:
    versions = list(nvidia_bindings.pinned())
    assert {version.split(".")[0] for version in versions} == {"10", "11"}
    assert any(version.startswith("10.3.") for version in versions)


def test_every_module_that_imports_nvidia_is_checked() -> None:
    found = set()
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] in FOREIGN for name in names):
                found.add(path.stem)
    assert found == set(CHECKED)


def _sources() -> list[Path]:
    """Every file of the package, also where its rooms are linked folders."""
    places = [(Path(folder), names) for folder, _, names in os.walk(PACKAGE, followlinks=True)]
    return [folder / name for folder, names in places for name in names if name.endswith(".py")]


def test_every_name_and_call_of_ours_exists_there(stubs: Path) -> None:
    ours = stubs / "ours"  # away from the packages beside the installed one, some of which have names that mypy keeps for itself
    ours.mkdir()
    for name in CHECKED:
        shutil.copy(PACKAGE / "runtimes" / f"{name}.py", ours)
    assert complaints(stubs, *(ours / f"{name}.py" for name in CHECKED)) == []


def test_dotted_names_in_our_source_exist_in_the_imported_module(generation: Generation) -> None:
    """The same once more without mypy: what the source spells out is looked up in the module itself."""
    names = sorted({name for module in CHECKED for name in _dotted(PACKAGE / "runtimes" / f"{module}.py")})
    assert {"tensorrt.Builder", "tensorrt.ProfilingVerbosity.DETAILED", "runtime.cudaMemGetInfo"} <= set(names)
    code = """
import functools, json, sys, tensorrt
from cuda.bindings import runtime
def there(name):
    try:
        functools.reduce(getattr, name.split('.')[1:], {'tensorrt': tensorrt, 'runtime': runtime}[name.split('.')[0]])
    except AttributeError:
        return False
    return True
print(json.dumps([name for name in sys.argv[1:] if not there(name)]))
"""
    assert generation.ask(code, *names) == []


def _dotted(path: Path) -> set[str]:
    """`trt.A.B` and `runtime.c` as they stand in a file, with their module's name first."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts: list[str] = []
        inner: ast.expr | ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts, inner = [inner.attr, *parts], inner.value
        if isinstance(inner, ast.Name) and parts and (inner.id == "trt" or (inner.id == "runtime" and parts[0].startswith("cuda"))):
            found.add(".".join(["tensorrt" if inner.id == "trt" else "runtime", *parts]))
    return found


WRONG = {
    "config.set_falg(trt.BuilderFlag.TF32)": 'has no attribute "set_falg"',
    "config.set_flag(trt.BuilderFlag.FP16)": 'has no attribute "FP16"',
    "config.set_flag()": "Missing positional argument",
    "config.set_flag(flg=trt.BuilderFlag.TF32)": "Unexpected keyword argument",
    "config.set_memory_pool_limit(trt.BuilderFlag.TF32, 1)": "incompatible type",
    "runtime.cudaMalloc()": "Missing positional argument",
    "runtime.cudaMalloc_v9(1)": 'has no attribute "cudaMalloc_v9"',
}
"""A call -> the complaint about it; that about FP16 on 11 only, whose builder has no precision flags."""


def test_the_check_finds_what_is_not_there(stubs: Path, generation: Generation) -> None:
    wrong = stubs / "wrong.py"
    head = ["import tensorrt as trt", "from cuda.bindings import runtime", "", "", "def use(config: trt.IBuilderConfig) -> None:"]
    wrong.write_text("\n".join([*head, *(f"    {line}" for line in WRONG)]) + "\n", encoding="ascii")
    found = complaints(stubs, wrong)
    for place, (line, complaint) in enumerate(WRONG.items(), len(head) + 1):
        told = [text for text in found if text.startswith(f"wrong.py:{place}:")]
        if "FP16" in line and generation.major < STRONG_ONLY:
            assert told == []
        else:
            assert len(told) == 1, line
            assert complaint in told[0]


def test_every_place_that_asks_what_there_is_is_known() -> None:
    """A new branch between versions must be exercised here too."""
    asked = []
    for name in CHECKED:
        for node in ast.walk(ast.parse((PACKAGE / "runtimes" / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
                asked.append((name, ast.unparse(node.args[1])))
            if isinstance(node, ast.Name) and node.id == "STRONG_ONLY" and isinstance(node.ctx, ast.Load):
                asked.append((name, "STRONG_ONLY"))
    assert sorted(asked) == [
        ("tensorrt_session", "'device_memory_size_v2'"), ("tensorrt_worker", "HARDWARE_LEVELS[options.hardware]"),
        ("tensorrt_worker", "STRONG_ONLY"),
    ]  # fmt: skip


def test_a_network_is_strongly_typed_in_both_generations(generation: Generation) -> None:
    code = """
import json, tensorrt
from edge_latup.runtimes.tensorrt_worker import network_flags, version
asked = network_flags()
print(json.dumps([list(version()), asked, 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)]))
"""
    version, asked, flag = generation.ask(code)
    assert version == [int(part) for part in generation.version.split(".")[:2]]
    assert asked == (0 if generation.major >= STRONG_ONLY else flag)


@pytest.mark.parametrize("level", list(HARDWARE_LEVELS))
def test_hardware_compatibility_is_set_or_refused_by_name(generation: Generation, level: str) -> None:
    code = """
import json, sys, types, tensorrt
from edge_latup.errors import MissingDependencyError
from edge_latup.runtimes.tensorrt_options import EngineOptions
from edge_latup.runtimes.tensorrt_worker import set_hardware_level
config = types.SimpleNamespace()
try:
    set_hardware_level(config, EngineOptions(hardware=sys.argv[1]))
    print(json.dumps(config.hardware_compatibility_level.name))
except MissingDependencyError as error:
    print(json.dumps(error.message + ' | ' + error.hint))
"""
    told = generation.ask(code, level)
    if generation.version.startswith("10.3.") and level == "same-compute-capability":
        assert "TensorRT 10.3.0 has no hardware compatibility 'same-compute-capability' | use ampere-plus" in told
    else:
        assert told == HARDWARE_LEVELS[level]  # type: ignore[index]


def test_what_an_engine_tells_of_its_memory_is_there_in_both(generation: Generation) -> None:
    code = "import json, tensorrt; print(json.dumps(hasattr(tensorrt.ICudaEngine, 'device_memory_size_v2')))"
    assert generation.ask(code) is True


def test_the_logger_and_the_profiler_are_real_ones(generation: Generation) -> None:
    code = """
import json, tensorrt as trt
from edge_latup.runtimes.tensorrt_log import make_log
from edge_latup.runtimes.tensorrt_session import make_profiler, sizes
log, warnings, errors = make_log()
for severity in ('INTERNAL_ERROR', 'ERROR', 'WARNING', 'INFO', 'VERBOSE'):
    log.log(getattr(trt.ILogger.Severity, severity), severity)
profiler, times = make_profiler()
profiler.report_layer_time('conv', 1.5)
kinds = [isinstance(log, trt.ILogger), isinstance(profiler, trt.IProfiler)]
print(json.dumps([kinds, warnings, errors, times, sizes(trt.Dims((1, 3, -1, 16)))]))
"""
    kinds, warnings, errors, times, shape = generation.ask(code)
    assert kinds == [True, True]
    assert (warnings, errors) == (["WARNING"], ["INTERNAL_ERROR", "ERROR"])
    assert times == {"conv": [1.5]}
    assert shape == [1, 3, -1, 16]


def test_without_its_libraries_the_builder_and_the_runtime_are_refused_in_words(generation: Generation) -> None:
    """The stand-ins give no builder and no runtime, as TensorRT does on a machine whose GPU it cannot use."""
    code = """
import json, tempfile
from pathlib import Path
from edge_latup.errors import EdgeLatupError
from edge_latup.runtimes.tensorrt_options import BuildRequest, EngineOptions
from edge_latup.runtimes import tensorrt_session, tensorrt_worker
request = BuildRequest(model='m', plan='p', timing_cache='t', input_shape=(1,), options=EngineOptions())
told = []
for attempt in (lambda: tensorrt_worker.build(request), lambda: tensorrt_session.load_engine(b'x', 'my.engine', host_code=False)):
    try:
        attempt()
    except EdgeLatupError as error:
        told.append([error.exit_code, error.message])
print(json.dumps(told))
"""
    built, loaded = generation.ask(code)
    assert built == [3, f"TensorRT {generation.version} does not start"]
    assert loaded == [2, "TensorRT cannot load my.engine: TensorRT does not start"]


def test_a_build_in_its_own_process_tells_its_error_across(generation: Generation) -> None:
    """The real worker, started as an engine is built, with NVIDIA's own module in it."""
    code = """
import json, tempfile
from pathlib import Path
from edge_latup.errors import EdgeLatupError
from edge_latup.records import write_record
from edge_latup.runtimes.fresh import run_fresh
from edge_latup.runtimes.tensorrt_engine import WORKER
from edge_latup.runtimes.tensorrt_options import BuildRequest, EngineOptions
with tempfile.TemporaryDirectory() as folder:
    request = BuildRequest(model='m', plan='p', timing_cache='t', input_shape=(1,), options=EngineOptions())
    write_record(request, Path(folder) / 'request.json')
    try:
        run_fresh(WORKER, [str(Path(folder) / 'request.json'), str(Path(folder) / 'report.json')], 'the engine')
    except EdgeLatupError as error:
        print(json.dumps([error.exit_code, error.message]))
"""
    assert generation.ask(code) == [3, f"the engine: TensorRT {generation.version} does not start"]


def test_the_errors_of_cuda_are_told_apart(generation: Generation) -> None:
    code = """
import json
from cuda.bindings import runtime
from edge_latup.errors import EdgeLatupError
from edge_latup.runtimes.tensorrt_cuda import check
told = [check((runtime.cudaError_t.cudaSuccess, 7), 'x'), check((runtime.cudaError_t.cudaSuccess, 7, 8), 'x')]
for status in (runtime.cudaError_t.cudaErrorMemoryAllocation, runtime.cudaError_t.cudaErrorInsufficientDriver):
    try:
        check((status, None), 'a buffer')
    except EdgeLatupError as error:
        told.append([type(error).__name__, error.message])
print(json.dumps(told))
"""
    assert generation.ask(code) == [
        7, [7, 8], ["DeviceMemoryError", "the GPU has no memory left for a buffer (cudaErrorMemoryAllocation)"],
        ["MissingDependencyError", "CUDA refuses a buffer: cudaErrorInsufficientDriver"],
    ]  # fmt: skip


def test_where_there_is_no_gpu_the_runtime_says_so(generation: Generation) -> None:
    code = """
import json
from edge_latup.runtimes import tensorrt
from edge_latup.runtimes.tensorrt_cuda import device_count
print(json.dumps([device_count(), tensorrt.missing(), tensorrt.is_available()]))
"""
    devices, missing, available = generation.ask(code)
    if devices:
        pytest.skip("a GPU is here")
    assert (missing, available) == ("TensorRT needs an NVIDIA GPU and its driver, and CUDA finds none", False)


def test_the_build_process_is_bare(generation: Generation) -> None:
    """It holds TensorRT and numpy; what else this project uses would take memory from the build."""
    code = """
import json, sys
import tensorrt
from edge_latup.runtimes import tensorrt_worker
heavy = ('torch', 'onnx', 'onnxruntime', 'openvino', 'nncf', 'scipy', 'pandas', 'matplotlib')
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    assert generation.ask(code) == []


def test_the_double_that_other_tests_use_has_only_genuine_names(generation: Generation) -> None:
    code = """
import json, sys, tensorrt
from cuda.bindings import runtime
wanted = json.loads(sys.argv[1])
real = {name: runtime if name == 'cuda.bindings.runtime' else getattr(tensorrt, name, None) for name in wanted}
print(json.dumps([f'{name}.{member}' for name, members in wanted.items() for member in members if not hasattr(real[name], member)]))
"""
    unknown = generation.ask(code, json.dumps(fake_tensorrt.names(generation.version)))
    # TensorRT 11 dropped what its double never uses; the flag stands there so that STRONGLY_TYPED has its place.
    assert unknown == (["NetworkDefinitionCreationFlag.EXPLICIT_BATCH"] if generation.major >= STRONG_ONLY else [])


FOUND = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from importlib.util import find_spec
from edge_latup.runtimes import tensorrt_system
from edge_latup.runtimes.tensorrt_worker import version
assert find_spec("tensorrt") is None
tensorrt_system.system_folders = lambda: (sys.argv[2],)
tensorrt_system.allow_system_tensorrt()
assert find_spec("cuda") is None, "only TensorRT is taken from there"
sys.path.append(sys.argv[3])
from cuda.bindings import runtime
import tensorrt
print(json.dumps([tensorrt.__version__, tensorrt.__file__, version(), runtime.__file__]))
"""


def test_the_genuine_modules_import_as_an_installed_bundle_finds_them(generation: Generation, tmp_path: Path) -> None:
    """In an interpreter without packages (-I -S): TensorRT where the machine has it, CUDA's bindings among the bundle's own."""
    (tmp_path / "cuda").symlink_to(generation.folder / "cuda")
    places = [place for place in sys.path if place and "cuda" not in {path.name for path in Path(place).glob("cuda")}]
    command = [sys.executable, "-I", "-S", "-c", FOUND, json.dumps(places), str(generation.folder), str(tmp_path)]
    environment = os.environ | {"LD_LIBRARY_PATH": str(generation.libraries)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told, module, (major, _), runtime = json.loads(done.stdout)
    assert told.startswith(generation.version.rpartition(".")[0])
    assert (Path(module).parent.parent, major) == (generation.folder, generation.major)
    assert Path(runtime).is_relative_to(tmp_path)
