"""The real nnU-Net on a few phantoms: fingerprint, plan (cut to a tiny network), preprocess, train, predict.

Run by the nnU-Net environment, which has none of this package:
    python nnunet_twin.py FOLDER labels|regions [tiny|modest]
FOLDER/cases holds the case folders; the last case is predicted. FOLDER/nnunet_results gets the trained folder, FOLDER/predicted.nii.gz
what its own predictor makes of that case.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

ENDINGS = {"flair": "t2f", "t1ce": "t1c", "t2": "t2w", "t1": "t1n"}
LABELS: dict[str, Any] = {"background": 0, "necrotic core": 1, "oedema": 2, "enhancing tumour": 3}
REGIONS: dict[str, Any] = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"patch": [24, 32, 28], "features": [8, 16, 32], "epochs": 4, "iterations": 40},
    "modest": {"patch": [64, 64, 64], "features": [16, 32, 64, 128], "epochs": 4, "iterations": 40},
}
"""`tiny`: sides that all differ, for the test. `modest`: a network that finds tumours, in minutes."""


def write_dataset(raw: Path, cases: list[Path], kind: str) -> None:
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for case in cases:
        for channel, ending in enumerate(ENDINGS.values()):
            shutil.copyfile(case / f"{case.name}-{ending}.nii.gz", raw / "imagesTr" / f"{case.name}_{channel:04d}.nii.gz")
        shutil.copyfile(case / f"{case.name}-seg.nii.gz", raw / "labelsTr" / f"{case.name}.nii.gz")
    told: dict[str, Any] = {"channel_names": {str(i): name for i, name in enumerate(ENDINGS)}, "numTraining": len(cases)}
    told |= {"labels": LABELS if kind == "labels" else REGIONS, "file_ending": ".nii.gz"}
    if kind == "regions":
        told["regions_class_order"] = [2, 1, 3]
    (raw / "dataset.json").write_text(json.dumps(told))


def cut_plans(path: Path, size: dict[str, Any]) -> None:
    """The planner's plan with a smaller network and patch."""
    stages = len(size["features"])
    plans = json.loads(path.read_text())
    chosen = plans["configurations"]["3d_fullres"]
    chosen |= {"patch_size": size["patch"], "batch_size": 2}
    chosen["architecture"]["arch_kwargs"] |= {
        "n_stages": stages, "features_per_stage": size["features"], "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)], "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }  # fmt: skip
    path.write_text(json.dumps(plans))


def train(folder: Path, name: str, size: dict[str, Any]) -> Path:
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    preprocessed = folder / "nnunet_preprocessed" / name
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    torch.manual_seed(0)
    trainer = nnUNetTrainer({**plans, "continue_training": False}, "3d_fullres", "all", dataset, torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = size["epochs"], size["iterations"], 1
    trainer.run_training()
    return Path(trainer.output_folder)


def predict(trained: Path, case: Path, out: Path) -> None:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(trained), ("all",))
    files = [[str(case / f"{case.name}-{ending}.nii.gz") for ending in ENDINGS.values()]]
    predictor.predict_from_files_sequential(files, [str(out).removesuffix(".nii.gz")], overwrite=True)


def main(folder: Path, kind: str, size: dict[str, Any]) -> None:
    for part in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{part}"] = str(folder / f"nnunet_{part}")
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "false"}
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    name = "Dataset001_Phantoms"
    *cases, held_out = sorted(path for path in (folder / "cases").iterdir() if path.is_dir())
    write_dataset(folder / "nnunet_raw" / name, cases, kind)
    api.extract_fingerprints([1], num_processes=1)
    api.plan_experiments([1])
    cut_plans(folder / "nnunet_preprocessed" / name / "nnUNetPlans.json", size)
    api.preprocess([1], configurations=["3d_fullres"], num_processes=[1])
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # augmentation in this process; the planner takes the number for threads
    trained = train(folder, name, size)
    predict(trained.parent, held_out, folder / "predicted.nii.gz")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], SIZES[sys.argv[3] if len(sys.argv) > 3 else "tiny"])
