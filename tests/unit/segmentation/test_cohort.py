"""A cohort is resumed where it stopped, nothing of another making is replaced unasked, and no bad case stops the others."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command import Command, Done
from small_cohort import NAMES, expected_names, image_of, outputs, write_small_cohort
from support import intensities, tree, write_nifti
from tiny_models import pointwise_artifact

from edge_latup.artifact import Artifact
from edge_latup.cases.layout import CaseFiles
from edge_latup.segmentation.case import Outcome, Segmenter

SETTINGS = ("--policy", "sliding-window", "--window", 8, "--threads", 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return pointwise_artifact(tmp_path_factory.mktemp("artifact") / "pointwise")


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    return write_small_cohort(tmp_path / "cases")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(cli: Command, model: Artifact, cases: Path, out: Path, *more: object) -> Done:
    return cli("--json", "segment", model.folder, cases, "--out", out, *SETTINGS, *more)


def statuses(done: Done) -> dict[str, str]:
    return {case["case"]: case["status"] for case in done.data["cases"]}


def test_every_case_gets_a_label_map_and_a_sidecar(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    done = run(cli, model, cases, out)
    assert done.code == 0, done.err
    assert list(outputs(out)) == expected_names()
    assert statuses(done) == dict.fromkeys(NAMES, "written")
    assert len({content for name, content in outputs(out).items() if name.endswith(".nii.gz")}) == len(NAMES), "no two cases are alike"
    first = done.data["cases"][0]
    assert (first["label_map"], first["windows"]) == (str(out / "case-a.nii.gz"), first["windows_run"])
    assert first["seconds"]["total"] > 0
    assert (done.data["failures"], done.data["not_started"]) == ([], [])


def test_the_human_result_names_each_case(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    arguments = ("segment", model.folder, cases, "--out", out, *SETTINGS)
    lines = cli(*arguments).out.splitlines()
    assert lines[0].startswith("case-a: WT ")
    assert " windows hold head; " in lines[0]
    assert lines[-1] == f"{out}: 6 written"
    again = cli(*arguments).out.splitlines()
    assert again[0].endswith("verified, skipped")
    assert again[-1] == f"{out}: 6 verified"


def test_one_case_may_be_a_cohort(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    assert statuses(run(cli, model, cases / "case-b", out)) == {"case-b": "written"}
    assert list(outputs(out)) == expected_names(("case-b",))


def test_what_is_finished_is_verified_and_not_touched(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    run(cli, model, cases, out)
    before = tree(out)
    done = run(cli, model, cases, out)
    assert (done.code, statuses(done)) == (0, dict.fromkeys(NAMES, "verified"))
    assert tree(out) == before
    assert done.data["cases"][0]["volumes_ml"]["WT"] > 0


def altered(out: Path) -> None:
    content = bytearray((out / "case-b.nii.gz").read_bytes())
    content[-1] ^= 1
    (out / "case-b.nii.gz").write_bytes(content)


DAMAGES = {
    "altered label map": altered,
    "cut label map": lambda out: (out / "case-b.nii.gz").write_bytes((out / "case-b.nii.gz").read_bytes()[:50]),
    "no label map": lambda out: (out / "case-b.nii.gz").unlink(),
    "no sidecar": lambda out: (out / "case-b.json").unlink(),
    "unreadable sidecar": lambda out: (out / "case-b.json").write_text("{"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_not_whole_is_done_again(cli: Command, model: Artifact, cases: Path, out: Path, name: str) -> None:
    run(cli, model, cases, out)
    before = outputs(out)
    DAMAGES[name](out)
    done = run(cli, model, cases, out)
    assert statuses(done) == {case: "written" if case == "case-b" else "verified" for case in NAMES}
    assert outputs(out) == before


def test_a_label_map_of_another_tool_is_not_replaced_unasked(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), out / "case-b.nii.gz")
    before = tree(out)
    done = run(cli, model, cases, out)
    assert (done.code, done.out) == (2, "")
    assert f"{out / 'case-b.nii.gz'} is there already, and was not made by edge-latup" in done.err
    assert tree(out) == before
    done = run(cli, model, cases, out, "--overwrite")
    assert statuses(done) == dict.fromkeys(NAMES, "written")


def test_a_label_map_that_somebody_corrected_is_not_replaced_unasked(
    cli: Command, model: Artifact, cases: Path, out: Path
) -> None:  # fmt: skip
    run(cli, model, cases, out)
    image = nib.load(out / "case-b.nii.gz")
    corrected = np.asarray(image.dataobj).copy()
    corrected[0, 0, 0] = 3 - corrected[0, 0, 0]
    nib.save(nib.Nifti1Image(corrected, image.affine, image.header), out / "case-b.nii.gz")
    before = tree(out)
    done = run(cli, model, cases, out)
    assert (done.code, done.out) == (2, "")
    assert f"{out / 'case-b.nii.gz'} was changed after it was made" in done.err
    assert "--overwrite" in done.err.split("hint: ")[1]
    assert tree(out) == before
    done = run(cli, model, cases, out, "--overwrite")
    assert statuses(done) == {case: "written" if case == "case-b" else "verified" for case in NAMES}


OTHERS = {
    "threads": (("--threads", 2), "other settings (threads)"),
    "runtime": (("--runtime", "onnxruntime"), "other settings (runtime)"),
    "overlap and views": (("--overlap", 0.5, "--tta", "identity,mirror"), "other settings (spec.spatial, spec.views)"),
    "components": (("--min-component", 5), "other settings (spec.post_process)"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_settings_replace_nothing_unasked(cli: Command, model: Artifact, cases: Path, out: Path, name: str) -> None:
    more, message = OTHERS[name]
    run(cli, model, cases, out)
    (out / "case-a.json").unlink()
    before = tree(out)
    done = run(cli, model, cases, out, *more)
    assert (done.code, done.out) == (2, "")
    assert f"{out / 'case-b.nii.gz'} is finished, but was made with {message}" in done.err
    assert "--overwrite" in done.err.split("hint: ")[1]
    assert tree(out) == before
    done = run(cli, model, cases, out, *more, "--overwrite")
    assert (done.code, statuses(done)) == (0, dict.fromkeys(NAMES, "written"))
    assert statuses(run(cli, model, cases, out, *more)) == dict.fromkeys(NAMES, "verified")


def test_another_model_replaces_nothing_unasked(cli: Command, model: Artifact, cases: Path, out: Path, tmp_path: Path) -> None:
    run(cli, model, cases, out)
    other = pointwise_artifact(tmp_path / "other", size=(8, 8, 8))
    before = tree(out)
    done = run(cli, other, cases, out)
    assert done.code == 2
    assert "case-a.nii.gz is finished, but was made with another model (pointwise)" in done.err
    assert tree(out) == before


def test_other_images_fail_their_case_alone(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    run(cli, model, cases, out)
    write_nifti(image_of(cases, "case-c"), intensities(99))
    before = tree(out)
    done = run(cli, model, cases, out)
    assert done.code == 2
    assert [failure["case"] for failure in done.data["failures"]] == ["case-c"]
    assert "was made with other image files" in done.data["failures"][0]["message"]
    assert tree(out) == before
    assert statuses(run(cli, model, cases, out, "--overwrite"))["case-c"] == "written"


def test_a_memory_budget_keeps_what_the_declared_policy_made(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    """And label maps of the smaller windows that a budget chose are kept under that budget, and under no other."""
    run(cli, model, cases, out)
    assert statuses(run(cli, model, cases, out, "--memory-budget", "64GiB")) == dict.fromkeys(NAMES, "verified")


@pytest.mark.parametrize(("budget", "kept"), [("1000MiB", True), ("900MiB", False), (None, False)])
def test_smaller_windows_are_kept_under_the_same_budget_only(
    cli: Command, model: Artifact, cases: Path, out: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None, kept: bool
) -> None:
    """900 MiB of this process: windows of 256^3 do not fit in 1000 MiB."""
    monkeypatch.setattr("edge_latup.segmentation.memory.process_bytes", lambda field: 500 << 20)
    arguments = ("--window", 256)
    assert (
        run(cli, model, cases / "case-a", out, *arguments, "--memory-budget", "1000MiB").data["cases"][0]["forecast"]["total"] <= 1000 << 20
    )
    assert '"gave_way": {' in (out / "case-a.json").read_text()
    before = tree(out)
    done = run(cli, model, cases / "case-a", out, *arguments, *(("--memory-budget", budget) if budget else ()))
    assert tree(out) == before
    assert done.code == (0 if kept else 2)
    assert kept or "smaller windows, under another memory budget" in done.err


def test_bad_cases_are_listed_and_the_others_are_done(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    image_of(cases, "case-b").unlink()
    image_of(cases, "case-d").write_bytes(b"not an image")
    shutil.copy(image_of(cases, "case-e"), cases / "case-e" / "other_t2.nii.gz")
    done = run(cli, model, cases, out)
    assert done.code == 2
    assert statuses(done) == dict.fromkeys(("case-a", "case-c", "case-f"), "written")
    messages = {failure["case"]: failure["message"] for failure in done.data["failures"]}
    assert list(messages) == ["case-b", "case-d", "case-e"]
    assert "no t2 volume" in messages["case-b"]
    assert "case-d_t2.nii.gz is not a NIfTI file" in messages["case-d"]
    assert "two candidates for t2" in messages["case-e"]
    assert all(failure["hint"] for failure in done.data["failures"])
    assert "error: 3 of 6 cases failed: case-b, case-d, case-e\nhint: " in done.err
    assert list(outputs(out)) == expected_names(("case-a", "case-c", "case-f"))


def test_the_failures_are_a_table(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    image_of(cases, "case-b").unlink()
    done = cli("segment", model.folder, cases, "--out", out, *SETTINGS)
    assert done.code == 2
    assert all(title in done.out for title in ("case", "message", "hint", "case-b"))
    assert f"{out}: 5 written, 1 failed" in done.out


def test_what_nobody_foresaw_fails_its_case_and_keeps_the_traceback(
    cli: Command, model: Artifact, cases: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(segmenter: Segmenter, files: CaseFiles, label_map: Path) -> Outcome:
        if files.name == "case-b":
            raise MemoryError
        if files.name == "case-c":
            raise KeyError("of a library")
        return segment_files(segmenter, files, label_map)

    segment_files = Segmenter.segment_files
    monkeypatch.setattr(Segmenter, "segment_files", broken)
    done = run(cli, model, cases, out)
    assert done.code == 2
    assert [(failure["case"], failure["kind"]) for failure in done.data["failures"]] == [("case-b", "MemoryError"), ("case-c", "KeyError")]
    assert "--memory-budget" in done.data["failures"][0]["hint"]
    assert "in broken\n" in done.err
    assert statuses(done) == dict.fromkeys(("case-a", "case-d", "case-e", "case-f"), "written")


def test_no_case_at_all_is_an_error(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    for path in cases.rglob("*.nii.gz"):
        path.unlink()
    done = run(cli, model, cases, out)
    assert (done.code, done.out) == (2, "")
    assert "no case found in" in done.err
    assert not out.exists()


def test_two_cases_of_one_name_are_refused(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    shutil.copytree(cases / "case-a", cases / "more" / "case-a")
    done = run(cli, model, cases, out)
    assert done.code == 2
    assert "two cases are named case-a" in done.err
    assert not out.exists()


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    run(cli, model, cases, out)
    leftovers = {".case-a.nii.gz.ab12_xyz.part.nii.gz", ".case-b.json.00000000.part"}
    others = {".case-z.nii.gz.ab12_xyz.part.nii.gz", ".case-a.nii.gz.swp", "case-a.part", ".case-a.nii.gz.toolong123.part.nii.gz", "notes"}
    for name in leftovers | others:
        (out / name).write_bytes(b"")
    assert run(cli, model, cases, out).code == 0
    assert {path.name for path in out.iterdir()} == {*expected_names(), *others}


def test_two_runs_do_not_share_a_folder(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    run(cli, model, cases, out)
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = run(cli, model, cases, out)
    finally:
        os.close(handle)
    assert done.code == 2
    assert f"another run is writing into {out}" in done.err
    assert run(cli, model, cases, out).code == 0


def test_a_4d_case_is_never_replaced_by_its_label_map(cli: Command, model: Artifact, tmp_path: Path) -> None:
    images = tmp_path / "task" / "imagesTs"
    write_nifti(images / "BRATS_001.nii.gz", intensities(0, (16, 18, 20, 4)))
    before = tree(tmp_path)
    done = run(cli, model, tmp_path / "task", images)
    assert done.code == 2
    assert f"would replace {images / 'BRATS_001.nii.gz'}, a file of case BRATS_001" in done.err
    assert tree(tmp_path) == before


def fail_writes(monkeypatch: pytest.MonkeyPatch, number: int, first: int) -> None:
    """From write number `first` on, whatever is written ends with an error of the system."""
    calls: list[int] = []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) >= first:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("edge_latup.records.os.fsync", fsync)


@pytest.mark.parametrize("first", [5, 6])
def test_a_full_disk_stops_the_cohort_without_partial_files(
    cli: Command, model: Artifact, cases: Path, out: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """While the third label map is written, or its sidecar."""
    with monkeypatch.context() as patch:
        fail_writes(patch, errno.ENOSPC, first)
        done = run(cli, model, cases, out)
    assert done.code == 2
    assert list(statuses(done)) == ["case-a", "case-b"]
    assert done.data["failures"][0]["case"] == "case-c"
    assert "No space left on device" in done.data["failures"][0]["message"]
    assert done.data["not_started"] == ["case-d", "case-e", "case-f"]
    assert "the disk is full, 3 were not started" in done.err
    assert list(outputs(out)) == expected_names(("case-a", "case-b"))
    assert list(statuses(run(cli, model, cases, out)).values()) == ["verified"] * 2 + ["written"] * 4


def test_another_error_of_the_file_system_stops_nothing(
    cli: Command, model: Artifact, cases: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_writes(monkeypatch, errno.EIO, 5)
    done = run(cli, model, cases, out)
    assert len(done.data["failures"]) == 4
    assert list(outputs(out)) == expected_names(("case-a", "case-b"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a read-only folder")
def test_a_read_only_folder_is_told_before_anything_is_segmented(cli: Command, model: Artifact, cases: Path, out: Path) -> None:
    out.mkdir(mode=0o555)
    done = run(cli, model, cases, out)
    assert (done.code, done.out) == (2, "")
    assert f"cannot write into {out}: Permission denied" in done.err


REFUSED = {
    "an image's name": ({"--out": "labels.png"}, "labels.png is not a NIfTI name, and no folder that exists"),
    "a file": ({"--out": "file"}, "cannot write into file: File exists"),
    "in no folder": ({"--out": "nowhere/out"}, "the folder nowhere does not exist"),
    "no address": ({"--scheduler": "localhost"}, "'localhost' is not an address"),
    "no cases": ({"cases": "nothing"}, "nothing does not exist"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cohort_that_cannot_begin_writes_nothing(
    cli: Command, model: Artifact, cases: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(cases.parent)
    (cases.parent / "file").write_text("")
    changes, message = REFUSED[name]
    wanted = {"cases": "cases", "--out": "out"} | changes
    root = wanted.pop("cases")
    before = tree(cases.parent)
    done = cli("segment", model.folder, root, *(part for option in wanted.items() for part in option))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "\nhint: " in done.err
    assert tree(cases.parent) == before


def test_a_folder_whose_name_holds_a_dot_is_a_folder_once_it_is_there(cli: Command, model: Artifact, cases: Path, tmp_path: Path) -> None:
    (tmp_path / "run.1").mkdir()
    assert run(cli, model, cases, tmp_path / "run.1").code == 0
    assert list(outputs(tmp_path / "run.1")) == expected_names()


def test_without_distributed_a_cluster_is_refused(
    cli: Command, model: Artifact, cases: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    done = run(cli, model, cases, out, "--scheduler", "tcp://127.0.0.1:8786")
    assert (done.code, done.out) == (3, "")
    assert "hint: in edge-latup's folder: pip install -c constraints.txt '.[cluster]'" in done.err
    assert not out.exists()
