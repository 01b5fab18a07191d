"""A SegResNet trained on phantoms for some minutes with MONAI's own transforms, loss and network, saved as a bundle.

    python monai_twin.py CASES FOLDER [STEPS]
FOLDER/brats_bundle is what `edge-latup import` and `bench-network` take.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.losses import DiceLoss
from monai.transforms import (
    Compose,
    ConcatItemsd,
    CopyItemsd,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    RandCropByPosNegLabeld,
    RandFlipd,
)
from monai.utils import set_determinism

sys.path.insert(0, str(Path(__file__).parents[1]))
import monai_bundle

ENDINGS = ("t1c", "t1n", "t2w", "t2f")
"""In the order of the bundle's channels."""
SIDE = 64
NETWORK = {**monai_bundle.SEGRESNET, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1], "init_filters": 16}
INFERER = {"_target_": "SlidingWindowInferer", "roi_size": [SIDE] * 3, "sw_batch_size": 1, "overlap": 0.5, "mode": "gaussian"}


def regions(label: torch.Tensor) -> torch.Tensor:
    """Tumour core, whole tumour, enhancing tumour of labels 1, 2, 3, in the order of the bundle's channels."""
    return torch.cat([(label == 1) | (label == 3), label > 0, label == 3]).float()


def patches() -> Compose:
    steps: list[Any] = [
        LoadImaged(keys=[*ENDINGS, "seg"]),
        EnsureChannelFirstd(keys=[*ENDINGS, "seg"]),
        ConcatItemsd(keys=ENDINGS, name="image"),
        NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
        CopyItemsd(keys="seg", names="regions"),
        Lambdad(keys="regions", func=regions),
        RandCropByPosNegLabeld(keys=["image", "regions"], label_key="seg", spatial_size=[SIDE] * 3, pos=1, neg=1, num_samples=8),
        RandFlipd(keys=["image", "regions"], prob=0.5, spatial_axis=0),
    ]
    return Compose(steps)


def main(cases: Path, folder: Path, steps: int) -> None:
    set_determinism(0)
    found = sorted(path for path in cases.iterdir() if path.is_dir())
    files = [{ending: str(case / f"{case.name}-{ending}.nii.gz") for ending in (*ENDINGS, "seg")} for case in found]
    network = ConfigParser({"network_def": NETWORK}).get_parsed_content("network_def").train()
    optimiser, overlap, draw = torch.optim.AdamW(network.parameters(), 1e-3), DiceLoss(sigmoid=True), patches()
    # It punishes tumour found in healthy tissue; by Dice alone so short a training finds it everywhere. MONAI's DiceCELoss would take the
    # softmax of regions, which overlap.
    entropy = torch.nn.BCEWithLogitsLoss()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    step = 0
    while step < steps:
        for patch in draw(files[torch.randint(len(files), ()).item()]):
            if step == steps:
                break
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = network(patch["image"].as_tensor()[None])
            output, wanted = output.float(), patch["regions"].as_tensor()[None]
            loss = overlap(output, wanted) + 10 * entropy(output, wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            if step % 20 == 0:
                print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)  # noqa: T201  (a program of its own)
    bundle = monai_bundle.write_bundle(folder, network_def=NETWORK, inferer=INFERER)
    torch.save(network.state_dict(), bundle / "models" / "model.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 900)
