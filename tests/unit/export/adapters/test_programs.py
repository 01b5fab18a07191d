"""Exported programs and TorchScript: the named output becomes the artifact; what could run more than a network is refused unread."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import exploits
import numpy as np
import pytest
import torch
from command import Command
from programs import Named, Saves, SavesWhenLoaded, made
from support import tree

from edge_latup.artifact import open_artifact
from edge_latup.runtimes import open_session

SPEC = """\
name = "two-heads"
modalities = ["flair", "t1ce", "t2", "t1"]
divisor = 2
[regions]
order = ["WT", "TC", "ET"]
[spatial]
kind = "sliding-window"
size = [12, 16, 20]
[import]
layout = "NCDHW"
axes = "zyx"
output = "{output}"
activation = "sigmoid"
"""


def exported(path: Path) -> Path:
    torch.export.save(torch.export.export(Named(made()).eval(), (torch.zeros(1, 4, 20, 16, 12),)), path)
    return path


def scripted(path: Path) -> Path:
    torch.jit.script(made()).save(str(path))
    return path


def traced(path: Path) -> Path:
    torch.jit.trace(made(), torch.zeros(1, 4, 20, 16, 12)).save(str(path))
    return path


@pytest.mark.parametrize(
    ("make", "name", "output"), [(exported, "m.pt2", "segmentation"), (scripted, "m.ts", "output_1"), (traced, "m.pt", "output_1")]
)
def test_the_named_output_becomes_an_artifact(cli: Command, tmp_path: Path, make: Callable[[Path], Path], name: str, output: str) -> None:
    model = make(tmp_path / name)
    (tmp_path / "spec.toml").write_text(SPEC.format(output=output))
    done = cli("import", model, "--spec", tmp_path / "spec.toml", "--out", tmp_path / "artifact")
    assert done.code == 0, done.err
    batch = np.random.default_rng(1).normal(size=(1, 4, 12, 16, 20)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.sigmoid(made()(torch.from_numpy(batch.transpose(0, 1, 4, 3, 2).copy()))[1]).numpy().transpose(0, 1, 4, 3, 2)
    artifact = open_artifact(tmp_path / "artifact")
    with open_session(artifact, "onnxruntime") as session:
        np.testing.assert_allclose(session.infer(batch), expected, atol=1e-5)
    assert len(artifact.manifest.recipe[0].parameters["dropped_outputs"]) == 1
    (tmp_path / "spec.toml").write_text(SPEC.format(output=output).replace(f'output = "{output}"\n', ""))
    done = cli("import", model, "--spec", tmp_path / "spec.toml", "--out", tmp_path / "b")
    assert (done.code, "has 2 outputs" in done.err) == (2, True)


@pytest.mark.parametrize(("make", "name"), [(exported, "m.pt2"), (scripted, "m.ts")])
def test_a_description_is_a_spec_to_start_from(cli: Command, tmp_path: Path, make: Callable[[Path], Path], name: str) -> None:
    model = make(tmp_path / name)
    described = cli("import", model, "--describe")
    assert described.code == 0, described.err
    (tmp_path / "spec.toml").write_text(described.out)
    assert cli("import", model, "--spec", tmp_path / "spec.toml", "--out", tmp_path / "a").code == 0, described.out
    assert cli("import", model, "--out", tmp_path / "b").code == 2


def rewritten(path: Path, out: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive with some members changed, or left out."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                target.writestr(name, content)
    return out


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_an_exported_program_that_runs_code_is_refused(cli: Command, tmp_path: Path) -> None:
    model, marker = exported(tmp_path / "m.pt2"), tmp_path / "marker"
    armed = exploits.armed(marker)
    shell = f"__import__('pathlib').Path({str(marker)!r}).touch()"

    def pickled_weight(name: str, content: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        return saved(exploits.Exploit(marker)) if name.startswith("data/weights/weight") else content

    def operator(name: str, content: bytes) -> bytes:
        return content.replace(b"torch.ops.aten.relu.default", b"torch.os.system") if name.startswith("models/") else content

    def size(name: str, content: bytes) -> bytes:
        if not name.startswith("models/"):
            return content
        told = json.loads(content)
        told["range_constraints"] = {"s0": {"min_val": 0, "max_val": 9}}
        told["extra"] = {"expr_str": shell}
        return json.dumps(told).encode()

    def packed(name: str, content: bytes) -> bytes:
        """Outputs in a type whose module PyTorch imports to make them."""
        return content.replace(rb"\"builtins.dict\"", rb"\"collections.defaultdict\"") if name.startswith("models/") else content

    changes: dict[str, Callable[[str, bytes], bytes]] = {
        "packed": packed,
        "samples": lambda name, content: saved(exploits.Exploit(marker)) if "sample_inputs" in name else content,
        "bare": lambda name, content: armed if "sample_inputs" in name else content,
        "weights": pickled_weight,
        "operator": operator,
        "size": size,
    }
    (tmp_path / "spec.toml").write_text(SPEC.format(output="segmentation"))
    twice = rewritten(model, tmp_path / "twice.pt2", lambda name, content: content)
    with zipfile.ZipFile(twice, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("weights_config.json"))
        archive.writestr(name.upper(), "{}")
    for key, change in {**changes, "twice": None}.items():
        bad = twice if change is None else rewritten(model, tmp_path / f"{key}.pt2", change)
        done = cli("import", bad, "--spec", tmp_path / "spec.toml", "--out", tmp_path / "a")
        assert (done.code, "is refused" in done.err) == (2, True), (key, done.err)
        assert not marker.exists(), key
    assert cli("import", model, "--spec", tmp_path / "spec.toml", "--out", tmp_path / "a").code == 0


def with_guard(model: Path, out: Path, shell: str) -> Path:
    armed = f'"guards_code": ["{shell} or True"]'.encode()
    return rewritten(model, out, lambda _, content: content.replace(b'"guards_code": []', armed))


def under_another_ending(model: Path, out: Path, shell: str) -> Path:
    """The same guard; the model is called model.jsox."""
    armed = with_guard(model, out.with_suffix(".tmp"), shell)
    with zipfile.ZipFile(armed) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name.replace("models/model.json", "models/model.jsox"), source.read(name))
    return out


@pytest.mark.parametrize("change", [with_guard, under_another_ending])
def test_an_exported_program_that_brings_python_is_refused(
    cli: Command, tmp_path: Path, change: Callable[[Path, Path, str], Path]
) -> None:  # fmt: skip
    marker = tmp_path / "marker"
    bad = change(exported(tmp_path / "m.pt2"), tmp_path / "bad.pt2", f"__import__('pathlib').Path('{marker}').touch()")
    torch.export.load(bad).module()(torch.zeros(1, 4, 20, 16, 12))
    assert marker.exists(), "PyTorch runs it"
    marker.unlink()
    (tmp_path / "spec.toml").write_text(SPEC.format(output="segmentation"))
    for arguments in (["--describe"], ["--spec", tmp_path / "spec.toml", "--out", tmp_path / "a"]):
        done = cli("import", bad, *arguments)
        assert (done.code, "is refused" in done.err) == (2, True), done.err
        assert not marker.exists()


@pytest.mark.parametrize("name", ["x): f() #", "x=f()", "x\nf()", "[f()]", "x;y", "'x'"])
def test_a_name_that_is_no_name_is_refused(cli: Command, tmp_path: Path, name: str) -> None:
    """PyTorch writes names into the text of a function."""
    written = json.dumps(name).encode()
    bad = rewritten(exported(tmp_path / "m.pt2"), tmp_path / "bad.pt2", lambda _, content: content.replace(b'"x"', written))
    done = cli("import", bad, "--describe")
    assert (done.code, "where a name belongs" in done.err) == (2, True), done.err


def test_torchscript_that_touches_files_is_refused(cli: Command, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.jit.script(made(Saves, str(marker))).save(str(tmp_path / "run.ts"))
    torch.jit.script(made(SavesWhenLoaded, str(marker))).save(str(tmp_path / "load.ts"))
    torch.jit.load(str(tmp_path / "load.ts"))
    assert marker.exists(), "loading TorchScript can write a file"
    marker.unlink()
    armed = exploits.armed(marker)
    rewritten(scripted(tmp_path / "m.ts"), tmp_path / "pickle.ts", lambda name, content: armed if name == "data.pkl" else content)
    (tmp_path / "spec.toml").write_text(SPEC.format(output="output_1"))
    for name in ("run.ts", "load.ts", "pickle.ts"):
        for arguments in (("--describe",), ("--spec", tmp_path / "spec.toml", "--out", tmp_path / "a")):
            done = cli("import", tmp_path / name, *arguments)
            assert (done.code, "is refused" in done.err) == (2, True), (name, done.err)
            assert not marker.exists(), name


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pkl", ".onnx", ".h5", ".keras", ".npz", ".pt2", ".ts"])
def test_a_pickle_under_any_name_runs_nothing(cli: Command, tmp_path: Path, ending: str) -> None:
    marker = tmp_path / "marker"
    content = exploits.armed(marker)
    (tmp_path / f"bare{ending}").write_bytes(content)
    exploits.checkpoint(tmp_path / f"zipped{ending}", marker, weights=torch.zeros(2))
    np.savez(tmp_path / f"array{ending}.npz", np.array([exploits.Exploit(marker)], dtype=object))
    before = tree(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        for arguments in (("--describe",), ("--out", tmp_path / "a")):
            done = cli("import", path, *arguments)
            assert done.code == 2, done.err
    assert tree(tmp_path) == before
    assert not marker.exists()


def test_a_cut_program_is_refused(cli: Command, tmp_path: Path) -> None:
    for make, name in ((exported, "m.pt2"), (scripted, "m.ts")):
        content = make(tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
        assert cli("import", tmp_path / name, "--describe").code == 2
