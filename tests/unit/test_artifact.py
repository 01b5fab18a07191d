"""An artifact is what its manifest says, byte for byte, or it is refused; and a folder is replaced whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import tree

from edge_latup import artifact as module
from edge_latup.artifact import MANIFEST_NAME, Artifact, open_artifact, refuse_existing, sha256_of, write_artifact
from edge_latup.errors import ArtifactError
from edge_latup.manifest import Manifest
from edge_latup.spec import ModelSpec

MODEL = b"weights" * 1000


def manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {
        "name": "model", "spec": ModelSpec(name="tiny"), "format": "onnx", "runtimes": ("onnxruntime",), "precision": "fp32",
        "storage": "float32", "input_shape": (1, 3, 16, 16, 16),
    }  # fmt: skip
    return Manifest.model_validate({**fields, **changes})


def writes(content: bytes = MODEL, name: str = "model.onnx") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def two_files(folder: Path) -> None:
    (folder / "model.xml").write_bytes(b"<net/>")
    (folder / "model.bin").write_bytes(MODEL)


def refused(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    assert caught.value.hint
    assert str(folder) in caught.value.message
    return caught.value.message


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    return write_artifact(tmp_path / "artifact", manifest(), writes())


def test_an_artifact_opens_as_it_was_written(made: Artifact) -> None:
    assert open_artifact(made.folder) == made
    assert made.model_path.read_bytes() == MODEL
    (file,) = made.manifest.files
    assert (file.name, file.size, file.sha256) == ("model.onnx", len(MODEL), sha256_of(made.model_path))
    assert made.manifest.model_size == len(MODEL)
    assert set(tree(made.folder)) == {"model.onnx", MANIFEST_NAME}


def test_folders_above_it_are_made(tmp_path: Path) -> None:
    assert open_artifact(write_artifact(tmp_path / "a" / "b", manifest(), writes()).folder).manifest.name == "model"


def test_every_file_of_the_format_is_recorded(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "ir", manifest(format="openvino-ir"), two_files)
    assert [file.name for file in artifact.manifest.files] == ["model.xml", "model.bin"]
    assert artifact.model_path.name == "model.xml"
    (artifact.folder / "model.bin").unlink()
    assert "model.bin is missing" in refused(artifact.folder)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:0], lambda b: b + b"\0", lambda b: b[:100] + b"X" + b[101:], lambda b: b[::-1]]
)
def test_an_altered_or_truncated_file_is_refused(made: Artifact, damage: Callable[[bytes], bytes]) -> None:
    made.model_path.write_bytes(damage(MODEL))
    assert "model.onnx is not the file its manifest recorded" in refused(made.folder)


def test_a_missing_file_is_refused(made: Artifact) -> None:
    made.model_path.unlink()
    assert "model.onnx is missing" in refused(made.folder)


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path, made: Artifact) -> None:
    (made.folder / MANIFEST_NAME).unlink()
    for folder, why in ((made.folder, f"has no {MANIFEST_NAME}"), (tmp_path / "nowhere", "does not exist")):
        assert f"is not an artifact: it {why}" in refused(folder)


def test_an_unknown_key_is_named_with_the_nearest_one(made: Artifact) -> None:
    path = made.folder / MANIFEST_NAME
    content = json.loads(path.read_text())
    content["precison"] = content.pop("precision")
    path.write_text(json.dumps(content))
    assert "unknown key 'precison' in Manifest; did you mean 'precision'?" in refused(made.folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 2}', "\x00"])
def test_a_manifest_that_cannot_be_read_is_refused(made: Artifact, content: str) -> None:
    (made.folder / MANIFEST_NAME).write_text(content)
    assert "is not a valid Manifest" in refused(made.folder)


def test_a_model_file_without_a_hash_is_refused(made: Artifact) -> None:
    path = made.folder / MANIFEST_NAME
    path.write_text(made.manifest.model_copy(update={"files": ()}).model_dump_json())
    assert "records no hash for model.onnx" in refused(made.folder)


def test_the_digest_is_the_models_own(tmp_path: Path) -> None:
    """Whatever the folder and the model are called and whatever was measured; another byte is another model."""
    one = write_artifact(tmp_path / "one", manifest(), writes())
    same = write_artifact(tmp_path / "elsewhere" / "two", manifest(name="other", precision="bf16"), writes())
    other = write_artifact(tmp_path / "three", manifest(), writes(MODEL + b"!"))
    assert one.digest == same.digest == open_artifact(one.folder.rename(tmp_path / "moved")).digest
    assert one.digest != other.digest


def test_the_digest_covers_every_file(tmp_path: Path) -> None:
    def other_text(folder: Path) -> None:
        two_files(folder)
        (folder / "model.xml").write_bytes(b"<net />")

    first = write_artifact(tmp_path / "one", manifest(format="openvino-ir"), two_files)
    second = write_artifact(tmp_path / "two", manifest(format="openvino-ir"), other_text)
    assert first.digest != second.digest


class WriteError(Exception):
    """The writer or the examiner fails."""


def fails_halfway(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"half")
    raise WriteError


def finds_fault(draft: Artifact) -> Manifest:
    assert draft.model_path.read_bytes() == MODEL
    raise WriteError


def test_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        write_artifact(tmp_path / "out", manifest(), fails_halfway)
    assert not tree(tmp_path)


def test_a_draft_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        write_artifact(tmp_path / "out", manifest(), writes(), examine=finds_fault)
    assert not tree(tmp_path)


def test_a_writer_that_forgets_a_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="the model file model.onnx was not written"):
        write_artifact(tmp_path / "out", manifest(), writes(name="model.data"))
    assert not tree(tmp_path)


def test_what_the_examiner_measured_is_in_the_manifest(tmp_path: Path) -> None:
    artifact = write_artifact(
        tmp_path / "out", manifest(), writes(), examine=lambda draft: draft.manifest.model_copy(update={"name": "examined"})
    )
    assert open_artifact(artifact.folder).manifest.name == "examined"


def test_an_existing_artifact_is_kept_unless_overwriting_is_asked_for(made: Artifact, tmp_path: Path) -> None:
    before = tree(tmp_path)
    with pytest.raises(ArtifactError, match="artifact exists") as caught:
        write_artifact(made.folder, manifest(), writes(b"new"))
    assert "--overwrite" in caught.value.hint
    assert tree(tmp_path) == before
    write_artifact(made.folder, manifest(), writes(b"new"), overwrite=True)
    assert open_artifact(made.folder).model_path.read_bytes() == b"new"
    assert set(tree(tmp_path)) == {"artifact", "artifact/model.onnx", f"artifact/{MANIFEST_NAME}"}


def test_files_of_the_former_format_do_not_stay(made: Artifact) -> None:
    write_artifact(made.folder, manifest(format="openvino-ir"), two_files, overwrite=True)
    assert set(tree(made.folder)) == {"model.xml", "model.bin", MANIFEST_NAME}


@pytest.mark.parametrize("fault", ["write", "examine", "rename"])
def test_failure_while_overwriting_keeps_the_old_artifact(
    made: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    before = tree(tmp_path)
    rename = Path.rename

    def broken_rename(self: Path, target: Path) -> Path:
        if target == made.folder and not self.name.endswith(".old"):
            raise OSError("no space")
        return rename(self, target)

    if fault == "rename":
        monkeypatch.setattr(Path, "rename", broken_rename)
    with pytest.raises((WriteError, OSError)):
        write_artifact(
            made.folder, manifest(), fails_halfway if fault == "write" else writes(), overwrite=True,
            examine=finds_fault if fault == "examine" else None,
        )  # fmt: skip
    monkeypatch.undo()
    assert tree(tmp_path) == before
    assert open_artifact(made.folder) == made


def foreign_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")


def foreign_manifest(path: Path) -> None:
    """A browser extension has a manifest.json too."""
    path.mkdir()
    (path / MANIFEST_NAME).write_text('{"manifest_version": 3, "name": "extension"}')


def artifact_with_notes(path: Path) -> None:
    write_artifact(path, manifest(), writes())
    (path / "notes.txt").write_text("do not lose this")


def linked_artifact(path: Path) -> None:
    path.symlink_to(write_artifact(path.parent / "target", manifest(), writes()).folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (foreign_folder, "exists and is not an artifact"),
        (Path.mkdir, "exists and is not an artifact"),
        (foreign_manifest, "exists and is not an artifact"),
        (Path.touch, "exists and is not a folder"),
        (linked_artifact, "exists and is not a folder"),
        (artifact_with_notes, "exists and holds notes.txt besides the artifact"),
    ],
)
def test_overwriting_replaces_artifacts_and_nothing_else(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        write_artifact(tmp_path / "out", manifest(), writes(), overwrite=True)
    assert message in caught.value.message
    assert "so it is not replaced" in caught.value.message
    with pytest.raises(ArtifactError, match="out exists"):
        refuse_existing(tmp_path / "out", overwrite=False)
    assert tree(tmp_path) == before


def test_a_link_to_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match="out exists"):
            write_artifact(tmp_path / "out", manifest(), writes(), overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        writes()(folder)
        foreign_folder(tmp_path / "out")

    with pytest.raises(ArtifactError, match="out exists"):
        write_artifact(tmp_path / "out", manifest(), write)
    assert set(tree(tmp_path)) == {"out", "out/thesis.tex"}


def test_a_hash_is_that_of_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    monkeypatch.setattr(module, "CHUNK", 2)
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
