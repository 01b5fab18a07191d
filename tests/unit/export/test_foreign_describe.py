"""What --describe prints is a spec.toml that imports the file it was printed for, and says what the file holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import foreign_models
import pytest

from edge_latup.export.foreign import import_onnx
from edge_latup.export.foreign_describe import describe, summary
from edge_latup.export.foreign_model import likely_output, read_foreign
from edge_latup.export.foreign_spec import ImportSpec, read_foreign_spec

MAKE: dict[str, Callable[[Path], Path]] = {
    "flat": foreign_models.flat, "channels last": foreign_models.channels_last, "several": foreign_models.several,
    "slab": foreign_models.slab, "regions": foreign_models.regions, "two classes": foreign_models.two_classes,
}  # fmt: skip


@pytest.mark.parametrize("name", MAKE)
def test_the_skeleton_imports_the_file_it_was_printed_for(tmp_path: Path, name: str) -> None:
    model = read_foreign(MAKE[name](tmp_path / "model.onnx"))
    text = describe(model).replace("128", "16")  # a free size, made small for the test
    (tmp_path / "spec.toml").write_text(text, encoding="utf-8")
    artifact = import_onnx([model.path], tmp_path / "spec.toml", tmp_path / "artifact")
    assert len(artifact.manifest.parity) == 2


def test_what_can_be_read_off_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(describe(read_foreign(foreign_models.slab(tmp_path / "slab.onnx"))), encoding="utf-8")
    spec = read_foreign_spec(tmp_path / "spec.toml")
    assert spec.model.name == "slab"
    assert spec.model.labels == (0, 2)
    assert spec.model.output_margin == (4, 0, 0)
    assert spec.model.spatial.size == (19, 24, 24)
    assert spec.imports[0].layout == "NDHWC"
    assert spec.imports[0].activation == "softmax"
    (tmp_path / "spec.toml").write_text(describe(read_foreign(foreign_models.flat(tmp_path / "flat.onnx"))), encoding="utf-8")
    spec = read_foreign_spec(tmp_path / "spec.toml")
    assert spec.model.divisor == 2, "from the strides in the graph"
    assert spec.imports[0].layout == "NCHW"


def test_the_summary_says_what_the_file_holds(tmp_path: Path) -> None:
    facts = summary(read_foreign(foreign_models.several(tmp_path / "several.onnx")))
    assert facts["opset"] == 17
    assert facts["inputs"] == [{"name": "image", "dtype": "float32", "shape": [1, 4, 16, 16, 16]}]
    assert [(output["name"], output["last_operation"]) for output in facts["outputs"]] == [
        ("auxiliary", "Conv"), ("segmentation", "Conv"), ("tumour_type", "Flatten"),
    ]  # fmt: skip
    assert facts["operations"]["Conv"] == 3
    assert "# input  image float32 (1, 4, 16, 16, 16)" in describe(read_foreign(tmp_path / "several.onnx"))


def test_the_likeliest_output_is_the_largest_with_as_many_axes(tmp_path: Path) -> None:
    assert likely_output(read_foreign(foreign_models.several(tmp_path / "several.onnx"))).name == "segmentation"


DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "foreign-models.md"


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL))
def test_the_documents_examples_are_specs(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.toml").write_text(text, encoding="utf-8")
    assert read_foreign_spec(tmp_path / "spec.toml").imports


def test_the_document_names_every_key() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [key for key in ImportSpec.model_fields if f"| `{key}` |" not in text] == []
