"""Foreign networks give, through the whole of edge-latup, the label maps that their untouched files give by hand.

By hand means: the original file in ONNX Runtime, with numpy before and after it, written here for each network on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import foreign_models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from support import tree

from edge_latup.artifact import Artifact, open_artifact, sha256_of
from edge_latup.cases.orientation import Grid
from edge_latup.cases.phantom import make_phantom
from edge_latup.cases.read import Case
from edge_latup.errors import ArtifactError
from edge_latup.export import foreign
from edge_latup.export.foreign import import_onnx
from edge_latup.manifest import RuntimeName
from edge_latup.runtimes import open_session
from edge_latup.segmentation.engine import segment
from edge_latup.spec import Size

Run = Callable[[np.ndarray], np.ndarray]
FOUR = 'modalities = ["flair", "t1ce", "t2", "t1"]'
RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "openvino")


def spec_toml(*lines: str, size: Sequence[int], kind: str = "centre-crop", tables: str, name: str = "foreign", more: str = "") -> str:
    top = "\n".join((f'name = "{name}"', 'normalisation = "z_score_nonzero"', "divisor = 1", *lines))
    return f'{top}\n[spatial]\nkind = "{kind}"\nsize = {list(size)}\n{more}\n{tables}'


def imported(folder: Path, toml: str, *models: Path, dynamic: bool = False) -> Artifact:
    (folder / "spec.toml").write_text(toml, encoding="utf-8")
    import_onnx(models, folder / "spec.toml", folder / "artifact", dynamic=dynamic)
    return open_artifact(folder / "artifact")


def case_of(shape: Size) -> Case:
    """A phantom whose axes are those of the spec already."""
    phantom = make_phantom(0, 0, shape=shape)
    grid = Grid(shape=shape, affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    return Case(name="phantom", images=dict(phantom.images), label=None, grid=grid, convention="brats-2023")


def z_scored(case: Case, *modalities: str) -> np.ndarray:
    """(C, x, y, z), by hand."""
    volume = np.stack([case.images[modality] for modality in modalities]).astype(np.float64)  # type: ignore[index]
    for channel in volume:
        head = channel != 0
        channel[head] = (channel[head] - channel[head].mean()) / channel[head].std()
    return volume.astype(np.float32)


def original(path: Path) -> Run:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [session.get_inputs()[0].name]
    return lambda batch: np.asarray(session.run([session.get_outputs()[0].name], {names[0]: batch})[0])


def labels_of(artifact: Artifact, runtime: RuntimeName, case: Case) -> np.ndarray:
    with open_session(artifact, runtime) as session:
        label: np.ndarray = segment(session, artifact.manifest.spec, case).label
    assert len(np.unique(label)) > 1, "a label map of one value would prove nothing"
    return label


def test_a_2_d_network_sees_each_axial_slice_rows_first(tmp_path: Path) -> None:
    model = foreign_models.flat(tmp_path / "flat.onnx")
    tables = '[import]\nlayout = "NCHW"\naxes = "yx"\nactivation = "softmax"\n'
    artifact = imported(tmp_path, spec_toml(FOUR, size=(32, 24, 6), kind="sliding-window", tables=tables, more="skip_air = false"), model)
    case, run = case_of((32, 24, 20)), original(model)
    volume = z_scored(case, "flair", "t1ce", "t2", "t1")
    expected = np.zeros((32, 24, 20), np.uint8)
    for z in range(20):
        expected[:, :, z] = run(np.ascontiguousarray(volume[:, :, :, z].transpose(0, 2, 1))[None])[0].argmax(0).T
    for runtime in RUNTIMES:
        np.testing.assert_array_equal(labels_of(artifact, runtime, case), expected)


def test_a_2_d_network_of_coronal_slices_that_takes_one_at_a_time(tmp_path: Path) -> None:
    model = foreign_models.flat(tmp_path / "flat.onnx", batch=1, opset=11)
    tables = '[import]\nlayout = "NCHW"\naxes = "zx"\nactivation = "softmax"\n'
    toml = spec_toml(FOUR, size=(20, 1, 16), kind="sliding-window", tables=tables, more="skip_air = false\noverlap = 0.0")
    artifact = imported(tmp_path, toml, model)
    case, run = case_of((20, 18, 16)), original(model)
    volume = z_scored(case, "flair", "t1ce", "t2", "t1")
    expected = np.stack([run(np.ascontiguousarray(volume[:, :, y].transpose(0, 2, 1))[None])[0].argmax(0).T for y in range(18)], axis=1)
    for runtime in RUNTIMES:
        np.testing.assert_array_equal(labels_of(artifact, runtime, case), expected)
    assert artifact.manifest.recipe[0].parameters["networks"][0]["opset"] == 11


def test_a_channels_last_network_of_another_axis_order(tmp_path: Path) -> None:
    model = foreign_models.channels_last(tmp_path / "last.onnx", size=(12, 16, 20))
    tables = '[import]\nlayout = "NDHWC"\naxes = "zyx"\nactivation = "none"\n'
    toml = spec_toml('modalities = ["t2", "flair", "t1ce"]', "labels = [0, 2, 1, 3]", size=(20, 16, 12), tables=tables)
    artifact = imported(tmp_path, toml, model)
    case = case_of((24, 18, 16))
    crop = z_scored(case, "t2", "flair", "t1ce")[:, 2:22, 1:17, 2:14]
    found = original(model)(np.ascontiguousarray(crop.transpose(3, 2, 1, 0))[None])[0]
    expected = np.zeros((24, 18, 16), np.uint8)
    expected[2:22, 1:17, 2:14] = np.array([0, 2, 1, 3])[found.argmax(-1)].transpose(2, 1, 0)
    for runtime in RUNTIMES:
        np.testing.assert_array_equal(labels_of(artifact, runtime, case), expected)


def test_the_named_output_is_used_and_what_only_the_others_need_is_dropped(tmp_path: Path) -> None:
    model = foreign_models.several(tmp_path / "several.onnx")
    tables = '[import]\nlayout = "NCDHW"\noutput = "segmentation"\nactivation = "softmax"\n'
    artifact = imported(tmp_path, spec_toml(FOUR, size=(16, 16, 16), tables=tables), model)
    case = case_of((16, 16, 16))
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    expected = session.run(["segmentation"], {"image": z_scored(case, "flair", "t1ce", "t2", "t1")[None]})[0][0].argmax(0)
    for runtime in RUNTIMES:
        np.testing.assert_array_equal(labels_of(artifact, runtime, case), expected)
    graph = onnx.load(artifact.model_path).graph
    assert len(graph.output) == 1
    assert [node.op_type for node in graph.node] == ["Conv", "Relu", "Conv", "Identity", "Softmax"]
    assert len(graph.initializer) == 4
    assert artifact.manifest.recipe[0].parameters["networks"][0]["dropped_outputs"] == ["auxiliary", "tumour_type"]


def test_slabs_of_19_slices_in_and_11_out_predict_every_slice(tmp_path: Path) -> None:
    model = foreign_models.slab(tmp_path / "slab.onnx", plane=24)
    tables = '[import]\nlayout = "NDHWC"\naxes = "zyx"\nactivation = "softmax"\n'
    toml = spec_toml(
        FOUR, "labels = [0, 2]", "output_margin = [0, 0, 4]", size=(24, 24, 19), kind="sliding-window", tables=tables,
        more="overlap = 0.0\nskip_air = false",
    )  # fmt: skip
    artifact = imported(tmp_path, toml, model)
    case, run = case_of((24, 24, 30)), original(model)
    padded = np.pad(z_scored(case, "flair", "t1ce", "t2", "t1"), [(0, 0), (0, 0), (0, 0), (4, 4)])
    expected = np.zeros((24, 24, 30), np.uint8)
    for first in (0, 11, 19):  # the last slab ends with the volume
        given = padded[..., first : first + 19].transpose(3, 2, 1, 0)
        expected[..., first : first + 11] = 2 * run(np.ascontiguousarray(given)[None])[0].argmax(-1).transpose(2, 1, 0)
    for runtime in RUNTIMES:
        np.testing.assert_array_equal(labels_of(artifact, runtime, case), expected)
    assert {0, 2} == set(np.unique(expected[..., :4])), "the first slices are predicted too"


@pytest.mark.parametrize("inside", [False, True], ids=["logits", "sigmoid inside"])
def test_region_heads_are_composed_as_nnu_net_composes_them(tmp_path: Path, inside: bool) -> None:
    model = foreign_models.regions(tmp_path / "regions.onnx", inside=inside)
    tables = f'[regions]\norder = ["WT", "TC", "ET"]\n[import]\nlayout = "NCDHW"\nactivation = "{"none" if inside else "sigmoid"}"\n'
    artifact = imported(tmp_path, spec_toml(FOUR, size=(20, 18, 16), tables=tables), model, dynamic=True)
    assert artifact.manifest.input_shape == (1, 4, -1, -1, -1)
    assert [parity.input_shape for parity in artifact.manifest.parity] == [(1, 4, 20, 18, 16), (1, 4, 21, 19, 17)] * 2
    case = case_of((20, 18, 16))
    found = original(model)(z_scored(case, "flair", "t1ce", "t2", "t1")[None])[0]
    whole, core, enhancing = found > (0.5 if inside else 0)
    expected = np.zeros((20, 18, 16), np.uint8)
    expected[whole] = 2
    expected[core] = 1
    expected[enhancing] = 3
    for runtime in RUNTIMES:
        np.testing.assert_array_equal(labels_of(artifact, runtime, case), expected)
    assert artifact.manifest.spec.regions is not None
    assert artifact.manifest.spec.regions.paint == (("WT", 2), ("TC", 1), ("ET", 3)), "the rule is in the artifact"


def test_the_foreground_of_a_two_class_softmax_is_a_region(tmp_path: Path) -> None:
    model = foreign_models.two_classes(tmp_path / "two.onnx")
    tables = '[regions]\norder = ["TC"]\n[import]\nlayout = "NCDHW"\nactivation = "none"\nforeground = 1\n'
    artifact = imported(tmp_path, spec_toml(FOUR, size=(16, 16, 16), tables=tables), model)
    case = case_of((16, 16, 16))
    found = original(model)(z_scored(case, "flair", "t1ce", "t2", "t1")[None])[0]
    for runtime in RUNTIMES:
        np.testing.assert_array_equal(labels_of(artifact, runtime, case), found[1] > 0.5)


def test_a_cascade_becomes_one_artifact_whose_outer_masks_bound_the_inner(tmp_path: Path) -> None:
    models = [
        foreign_models.two_classes(tmp_path / "wt.onnx", 6), foreign_models.two_classes(tmp_path / "tc.onnx", 7),
        foreign_models.regions(tmp_path / "et.onnx", 1, seed=8),
    ]  # fmt: skip
    pair = '[[import]]\nlayout = "NCDHW"\nactivation = "none"\nforeground = 1\n'
    tables = f'[regions]\norder = ["WT", "TC", "ET"]\nnested = true\n{pair}{pair}[[import]]\nlayout = "NCDHW"\nactivation = "sigmoid"\n'
    artifact = imported(tmp_path, spec_toml(FOUR, size=(16, 16, 16), tables=tables), *models)
    case = case_of((16, 16, 16))
    batch = z_scored(case, "flair", "t1ce", "t2", "t1")[None]
    whole, core, enhancing = (original(model)(batch)[0, -1] > limit for model, limit in zip(models, (0.5, 0.5, 0), strict=True))
    expected = np.where(whole, 2, 0)
    expected[whole & core] = 1
    expected[whole & core & enhancing] = 3
    assert (core & ~whole).any(), "or the outer mask would bound nothing"
    for runtime in RUNTIMES:
        np.testing.assert_array_equal(labels_of(artifact, runtime, case), expected)
    assert [told["file"] for told in artifact.manifest.recipe[0].parameters["networks"]] == ["wt.onnx", "tc.onnx", "et.onnx"]


def test_the_manifest_says_where_the_artifact_comes_from(tmp_path: Path) -> None:
    model = foreign_models.channels_last(tmp_path / "last.onnx")
    tables = '[import]\nlayout = "NDHWC"\naxes = "zyx"\nactivation = "none"\n'
    manifest = imported(tmp_path, spec_toml(size=(20, 16, 12), tables=tables), model).manifest
    (step,) = manifest.recipe
    assert step.operation == "import"
    assert step.parameters["networks"][0]["sha256"] == sha256_of(model)
    assert step.parameters["networks"][0]["axes"] == "zyx"
    assert step.parameters["left_out_runtimes"] == {}
    assert {"onnx", "onnxruntime", "openvino", "edge-latup"} <= set(step.versions)
    assert [(parity.reference, parity.candidate) for parity in manifest.parity] == [
        ("original onnxruntime fp32", "onnxruntime fp32"), ("original onnxruntime fp32", "openvino fp32"),
    ]  # fmt: skip
    assert all(parity.input_shape == (1, 3, 20, 16, 12) and parity.input == "standard normal values, seed 0" for parity in manifest.parity)


def test_a_graph_that_was_rewritten_wrongly_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With x and y swapped, which keeps every shape."""
    model = foreign_models.flat(tmp_path / "flat.onnx")
    rewrite = foreign.to_house

    def wrong(*arguments: object, **options: object) -> onnx.ModelProto:
        proto = rewrite(*arguments, **options)  # type: ignore[arg-type]
        for node in proto.graph.node:
            if node.name == "turn_input":
                perm = node.attribute[0].ints
                perm[2], perm[3] = perm[3], perm[2]
        return proto

    monkeypatch.setattr(foreign, "to_house", wrong)
    tables = '[import]\nlayout = "NCHW"\nactivation = "softmax"\n'
    (tmp_path / "spec.toml").write_text(spec_toml(FOUR, size=(16, 16, 4), tables=tables), encoding="utf-8")
    before = tree(tmp_path)
    with pytest.raises(ArtifactError, match="does not compute what original onnxruntime fp32 computes"):
        import_onnx([model], tmp_path / "spec.toml", tmp_path / "artifact")
    assert tree(tmp_path) == before


def test_a_runtime_that_computes_something_else_is_left_out_and_the_recipe_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "RUNTIME_TOLERANCE", {"max_abs": -1.0})
    model = foreign_models.channels_last(tmp_path / "last.onnx")
    tables = '[import]\nlayout = "NDHWC"\naxes = "zyx"\nactivation = "none"\n'
    manifest = imported(tmp_path, spec_toml(size=(20, 16, 12), tables=tables), model).manifest
    assert manifest.runtimes == ("onnxruntime",)
    assert "max_abs" in manifest.recipe[0].parameters["left_out_runtimes"]["openvino"]
    assert len(manifest.parity) == 1
