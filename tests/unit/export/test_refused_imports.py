"""A wrong spec is refused with what was found and the line to change; a file that cannot be imported with what to do; nothing is left."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import foreign_models
import numpy as np
import onnx
import pytest
from foreign_models import Builder
from onnx import TensorProto, helper
from support import tree

from edge_latup.errors import ArtifactError, EdgeLatupError, SpecError
from edge_latup.export.foreign import import_onnx
from edge_latup.export.foreign_model import read_foreign
from edge_latup.export.foreign_spec import read_foreign_spec

LAST = """\
name = "last"
modalities = ["flair", "t1ce", "t2"]
divisor = 1
labels = [0, 1, 2, 3]
[spatial]
kind = "sliding-window"
size = [20, 16, 12]
[import]
layout = "NDHWC"
axes = "zyx"
activation = "none"
"""
SLAB = """\
name = "slab"
modalities = ["flair", "t1ce", "t2", "t1"]
divisor = 1
labels = [0, 2]
output_margin = [0, 0, 4]
[spatial]
kind = "sliding-window"
size = [24, 24, 19]
[import]
layout = "NDHWC"
axes = "zyx"
activation = "softmax"
"""
FREE = """\
name = "regions"
modalities = ["flair", "t1ce", "t2", "t1"]
divisor = 1
[regions]
order = ["WT", "TC", "ET"]
[spatial]
size = [16, 16, 16]
kind = "sliding-window"
[import]
layout = "NCDHW"
activation = "sigmoid"
"""
SEVERAL = FREE.replace('[regions]\norder = ["WT", "TC", "ET"]\n', "").replace('"sigmoid"', '"softmax"\noutput = "segmentation"')
FLAT = SEVERAL.replace("NCDHW", "NCHW").replace('output = "segmentation"\n', "").replace("16, 16, 16", "16, 16, 4")


def refused(folder: Path, model: Path, toml: str, *, dynamic: bool = False) -> EdgeLatupError:
    """The error of an import that leaves nothing behind."""
    (folder / "spec.toml").write_text(toml, encoding="utf-8")
    before = tree(folder)
    with pytest.raises(EdgeLatupError) as caught:
        import_onnx([model], folder / "spec.toml", folder / "artifact", dynamic=dynamic)
    assert tree(folder) == before
    assert caught.value.exit_code == 2
    return caught.value


WRONG: dict[str, tuple[Callable[[Path], Path], str, tuple[str, str], Sequence[str], Sequence[str]]] = {
    # name: model, right spec, (line, wrong line), parts of the message, parts of the hint
    "channels": (
        foreign_models.channels_last, LAST, ('["flair", "t1ce", "t2"]', '["flair", "t1ce"]'),
        ["image float32 (1, 12, 16, 20, 3)", "axis 4 (channels) is 3, the spec says 2"],
        ["line 2, write modalities =", '["flair", "t1ce", "t2"]', "in the order the network was trained on"],
    ),
    "layout": (
        foreign_models.channels_last, LAST, ('"NDHWC"', '"NCDHW"'), ["axis 1 (channels) is 12, the spec says 3"],
        ["line 9, write layout =", '"NDHWC" instead of layout = "NCDHW"'],
    ),
    "axis order": (
        foreign_models.channels_last, LAST, ('axes = "zyx"\n', ""), ["axis 1 (size along x) is 12, the spec says 20"],
        ['add axes = "zyx" under [import]'],
    ),
    "two axes swapped": (
        foreign_models.channels_last, LAST, ('"zyx"', '"zxy"'), ["reads NzxyC", "axis 2 (size along x) is 16, the spec says 20"],
        ['line 10, write axes = "zyx" instead of axes = "zxy"'],
    ),
    "size": (
        foreign_models.channels_last, LAST, ("[20, 16, 12]", "[20, 16, 16]"), ["axis 1 (size along z) is 12, the spec says 16"],
        ["line 7, write size = [20, 16, 12] instead of size = [20, 16, 16]"],
    ),
    "2-D for 3-D": (
        foreign_models.channels_last, LAST, ('"NDHWC"\naxes = "zyx"', '"NHWC"'), ["layout NHWC has 4 axes"], ['write layout = "NCDHW"'],
    ),
    "labels": (
        foreign_models.channels_last, LAST, ("[0, 1, 2, 3]", "[0, 1, 3]"),
        ["gives probabilities float32 (1, 12, 16, 20, 4)", "4 channels along axis 4, the spec has 3 labels"],
        ["line 4, write labels = [0, 1, 2, 3] instead of labels = [0, 1, 3]"],
    ),
    "probabilities taken for logits": (
        foreign_models.channels_last, LAST, ('activation = "none"', 'activation = "softmax"'), ["are probabilities already"],
        ['line 11, write activation = "none"'],
    ),
    "logits taken for probabilities": (
        foreign_models.slab, SLAB, ('"softmax"', '"none"'), ["gives values from -", "are no probabilities"],
        ['line 12, write activation = "softmax"'],
    ),
    "margin": (
        foreign_models.slab, SLAB, ("output_margin = [0, 0, 4]\n", ""),
        ["(24, 24, 11) along x, y, z for an input of (24, 24, 19), the spec says (24, 24, 19)"],
        ["add output_margin = [0, 0, 4] at the top"],
    ),
    "margin on another axis": (
        foreign_models.slab, SLAB, ("[0, 0, 4]", "[4, 0, 0]"), ["the spec says (16, 24, 19)"],
        ["line 5, write output_margin = [0, 0, 4] instead of output_margin = [4, 0, 0]"],
    ),
    "regions": (
        foreign_models.regions, FREE, ('["WT", "TC", "ET"]', '["WT", "TC"]'), ["3 channels along axis 1, the spec has 2 regions"],
        ['line 5, write order = ["WT", "TC", "ET"]'],
    ),
    "softmax over regions": (
        foreign_models.regions, FREE, ('"sigmoid"', '"softmax"'), ["regions overlap"], ['line 11, write activation = "sigmoid"'],
    ),
    "sigmoid twice": (
        lambda path: foreign_models.regions(path, inside=True), FREE, ("", ""), ["are probabilities already"], ['activation = "none"'],
    ),
    "unknown output": (
        foreign_models.several, SEVERAL, ('"segmentation"', '"segmentatoin"'),
        ["no output 'segmentatoin'", "auxiliary float32 (1, 4, 8, 8, 8); segmentation float32", "tumour_type float32 (1, 8)"],
        ['line 10, write output = "segmentation"'],
    ),
    "no output named": (
        foreign_models.several, SEVERAL, ('output = "segmentation"\n', ""), ["has 3 outputs: auxiliary"],
        ['add output = "segmentation" under [import]'],
    ),
    "half resolution": (
        foreign_models.several, SEVERAL, ('"segmentation"', '"auxiliary"'), ["(8, 8, 8) along x, y, z for an input of (16, 16, 16)"],
        ["an output at the input's resolution is needed", "segmentation float32"],
    ),
    "no segmentation": (
        foreign_models.several, SEVERAL, ('"segmentation"', '"tumour_type"'), ["(1, 8); layout NCDHW has 5 axes"], ["segmentation float32"],
    ),
    "not divisible": (
        foreign_models.flat, FLAT, ("16, 16, 4", "15, 16, 4"), ["does not run on an input of (15, 16, 4)"],
        ["line 5, write size = [16, 16, 4]", "which it takes"],
    ),
    "batch": (
        lambda path: foreign_models.flat(path, batch=1), FLAT, ("", ""), ["axis 0 (size along z) is 1, the spec says 4"],
        ["write size = [16, 16, 1]"],
    ),
    "foreground": (
        foreign_models.two_classes, FREE, ('"WT", "TC", "ET"]', '"WT"]'), ["2 channels"], ['order = ["WT", "TC"]'],
    ),
    "foreground out of range": (
        foreign_models.two_classes, FREE.replace('"WT", "TC", "ET"]', '"WT"]'), ('"sigmoid"', '"none"\nforeground = 2'),
        ["2 channels, foreground is 2"], ["write foreground = 1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_spec_is_refused_with_what_was_found_and_the_line_to_change(tmp_path: Path, name: str) -> None:
    make, toml, (right, wrong), told, remedy = WRONG[name]
    model = make(tmp_path / "model.onnx")
    error = refused(tmp_path, model, toml.replace(right, wrong))
    for part in told:
        assert part in error.message
    assert str(tmp_path) in error.message
    for part in remedy:
        assert part in error.hint


@pytest.mark.parametrize("name", ["layout", "margin", "unknown output"])
def test_the_right_spec_passes(tmp_path: Path, name: str) -> None:
    """Or the refusals above might be of something else."""
    make, toml, _, _, _ = WRONG[name]
    (tmp_path / "spec.toml").write_text(toml, encoding="utf-8")
    import_onnx([make(tmp_path / "model.onnx")], tmp_path / "spec.toml", tmp_path / "artifact")


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("divisor", "divisr", "unknown key 'divisr' in ModelSpec; did you mean 'divisor'?"),
        ("layout", "layuot", "unknown key 'layuot' in ImportSpec; did you mean 'layout'?"),
        ("[spatial]", "[spacial]", "unknown key 'spacial' in ModelSpec; did you mean 'spatial'?"),
        ('"NDHWC"', '"NDHWD"', "layout: Input should be 'NCDHW', 'NDHWC', 'NCHW' or 'NHWC'"),
        ('"zyx"', '"zyy"', "axes 'zyy' must name 3 different ones of x, y, z"),
        ('"t2"]', '"t3"]', "modalities.2"),
        ("[import]", "[imports]", "has no [import] table"),
        ("divisor = 1", "divisor = ", "is not TOML"),
        ("divisor = 1", "divisor = 8", "must be positive multiples of 8"),
        ("divisor = 1", 'divisor = 1\nnetwork = { family = "latup-net" }', "has a network"),
        ("labels = [0, 1, 2, 3]", 'labels = [0, 2]\nregions = { order = ["WT"] }', "labels or regions, not both"),
        ("labels = [0, 1, 2, 3]", 'regions = { order = ["WT", "WT"] }', "regions must be distinct"),
        ("labels = [0, 1, 2, 3]", 'regions = { order = ["TC"], paint = [["WT", 2]] }', "paint gives TC no label"),
        ('activation = "none"', 'activation = "none"\nforeground = 1', "foreground picks the one channel of a region"),
        ('activation = "none"', 'activation = "none"\noutput_layout = "NCHW"', "another number of axes"),
    ],
)
def test_a_spec_that_is_none_is_refused_by_key(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    assert right in LAST
    (tmp_path / "spec.toml").write_text(LAST.replace(right, wrong), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read_foreign_spec(tmp_path / "spec.toml")
    assert told in caught.value.message
    assert str(tmp_path / "spec.toml") in caught.value.message
    assert caught.value.hint


def test_without_a_spec_there_is_a_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist") as caught:
        read_foreign_spec(tmp_path / "spec.toml")
    assert "--describe" in caught.value.hint


def external(path: Path) -> Path:
    model = onnx.load(foreign_models.channels_last(path))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def with_pickle(path: Path) -> Path:
    path.write_bytes(pickle.dumps({"state_dict": [1, 2, 3]}))
    return path


def with_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return path


def with_bytes(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def half(path: Path) -> Path:
    net = Builder()
    net.add("Cast", to=TensorProto.FLOAT, name="y")
    return net.save(path, (1, 3, 12, 16, 20), {"y": (1, 3, 12, 16, 20)}, dtype=TensorProto.FLOAT16)


def half_weights(path: Path) -> Path:
    net = Builder()
    weight = net.constant(np.ones((4, 3, 1, 1, 1), np.float16))
    net.add("Cast", source=weight, to=TensorProto.FLOAT, name="w")
    net.last = "image"
    net.add("Conv", "w", source="image", name="y")
    return net.save(path, (1, 3, 12, 16, 20), {"y": (1, 4, 12, 16, 20)})


def compressed(path: Path) -> Path:
    net = Builder()
    net.add("QuantizeLinear", net.constant(np.float32(0.1)), net.constant(np.uint8(0)))
    net.add("DequantizeLinear", net.constant(np.float32(0.1)), net.constant(np.uint8(0)), name="y")
    return net.save(path, (1, 3, 12, 16, 20), {"y": (1, 3, 12, 16, 20)})


def of_a_vendor(path: Path) -> Path:
    node = helper.make_node("FusedConv", ["image", "image"], ["y"], domain="com.microsoft")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 4, 4, 4)) for name in ("image", "y")]
    graph = helper.make_graph([node], "vendor", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]), path)
    return path


def two_inputs(path: Path) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 12, 16, 20)) for name in ("image", "position", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["image", "position"], ["y"])], "two", values[:2], values[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def decided(path: Path) -> Path:
    values = [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 12, 16, 20, 3))]
    made = [helper.make_tensor_value_info("labels", TensorProto.INT64, (1, 12, 16, 20, 1))]
    graph = helper.make_graph([helper.make_node("ArgMax", ["image"], ["labels"], axis=4)], "decided", values, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


UNFIT: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "weights in another file": (external, "tensors in other files (weights.bin)", "onnx.save(onnx.load("),
    "a pickle": (with_pickle, "is a pickle, which can run code", "export the network to ONNX"),
    "a PyTorch checkpoint": (with_zip, "a zip archive (PyTorch checkpoints are, with a pickle inside", "export the network to ONNX"),
    "HDF5": (with_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 64), "an HDF5 file (Keras)", "export the network to ONNX"),
    "no model": (with_bytes(b"not a model at all"), "is not ONNX", "export the network to ONNX again"),
    "nothing": (with_bytes(b""), "is not ONNX", "export the network to ONNX again"),
    "missing": (lambda path: path, "is not a file", "edge-latup import"),
    "float16 input": (half, "takes float16", "float32"),
    "float16 weights": (half_weights, "compressed already (half-precision weights such as c0)", "float32 original"),
    "quantized": (compressed, "compressed already (DequantizeLinear, QuantizeLinear)", "float32 original"),
    "operators of a vendor": (of_a_vendor, "uses operators of com.microsoft", "standard operators"),
    "two inputs": (two_inputs, "takes 2 inputs: image float32 (1, 3, 12, 16, 20); position", "takes one"),
    "labels instead of probabilities": (decided, "labels int64 (1, 12, 16, 20, 1), which holds no probabilities", "ArgMax"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_file_that_cannot_be_imported_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    make, told, remedy = UNFIT[name]
    error = refused(tmp_path, make(tmp_path / "model.onnx"), LAST.replace("NDHWC", "NCDHW").replace("[20, 16, 12]", "[20, 16, 12]"))
    assert told in error.message
    assert str(tmp_path / "model.onnx") in error.message
    assert remedy in error.hint


def test_the_way_to_inline_external_data_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of the hint, run as it is printed."""
    path = external(tmp_path / "model.onnx")
    with pytest.raises(ArtifactError) as caught:
        read_foreign(path)
    code = caught.value.hint.split('python -c "')[1].split('"')[0]
    exec(code)
    assert len(read_foreign(tmp_path / "model-inlined.onnx").inputs) == 1


def test_fixed_sizes_are_not_left_free(tmp_path: Path) -> None:
    error = refused(tmp_path, foreign_models.channels_last(tmp_path / "model.onnx"), LAST, dynamic=True)
    assert "fixed sizes: 20 along x, 16 along y, 12 along z" in error.message


def test_as_many_tables_as_files(tmp_path: Path) -> None:
    model = foreign_models.two_classes(tmp_path / "model.onnx")
    (tmp_path / "spec.toml").write_text(FREE, encoding="utf-8")
    with pytest.raises(SpecError, match=r"1 \[import\] tables for 2 ONNX files"):
        import_onnx([model, model], tmp_path / "spec.toml", tmp_path / "artifact")


def test_an_artifact_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    with pytest.raises(ArtifactError, match="exists"):
        import_onnx([tmp_path / "model.onnx"], tmp_path / "spec.toml", tmp_path / "artifact")


def test_sizes_that_are_only_called_free_are_found_out(tmp_path: Path) -> None:
    model = foreign_models.falsely_free(tmp_path / "model.onnx")
    toml = SEVERAL.replace("segmentation", "heads")
    error = refused(tmp_path, model, toml, dynamic=True)
    assert "sizes are not free in multiples of 1" in error.message
    assert "(17, 17, 17)" in error.message
    assert "leave out --dynamic" in error.hint
    import_onnx([model], tmp_path / "spec.toml", tmp_path / "artifact")
