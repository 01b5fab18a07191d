"""The other side of the comparison: MONAI's sliding windows over the PyTorch reference, as its users run it.

Files are read and the label map is written by this package (the same code for every row), windows are normalised as the
model spec says, so that the network is shown the same numbers; sliding, blending and the foreground box are MONAI's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.cases.layout import CaseFiles
from edge_latup.cases.read import read_case
from edge_latup.cases.write import write_label_map
from edge_latup.errors import InputError, MissingDependencyError, install_hint
from edge_latup.runtimes.base import Session, installed
from edge_latup.segmentation.engine import Clock, finish
from edge_latup.segmentation.prepare import CropBox, Image, normalise_after_crop, whole_volumes
from edge_latup.spec import ModelSpec, SlidingWindow

if TYPE_CHECKING:
    import torch

WINDOWS_AT_ONCE: Final = 1


def check_monai() -> None:
    """Refuse to begin without MONAI.

    Raises:
        MissingDependencyError: it is not installed.
    """
    if not installed("monai"):
        raise MissingDependencyError("comparing with MONAI needs MONAI, which is not installed", install_hint("compare"))


def check_plain(spec: ModelSpec) -> None:
    """Refuse what MONAI's sliding windows do not do by themselves, so that both sides do the same work.

    Raises:
        InputError: the spec asks for regions, test-time augmentation, a threshold, or windows that lie or count otherwise than MONAI's
            here.
    """
    spatial = spec.spatial
    if isinstance(spatial, SlidingWindow) and (
        spatial.blending == "gaussian_nnunet" or spatial.steps == "even" or spatial.inside != "volume"
    ):
        raise InputError(f"{spec.name} slides its windows as nnU-Net does, which MONAI does not", "compare another artifact")
    if spec.regions is not None:
        raise InputError(f"{spec.name} gives regions, MONAI's side takes the likeliest class", "compare a network of classes")
    if spec.averaging == "logits":
        raise InputError(f"{spec.name} averages logits, MONAI's side is shown probabilities", "compare another artifact")
    if spec.views != ("identity",):
        raise InputError(
            f"{spec.name} is shown in {len(spec.views)} views, MONAI's sliding windows show one", "compare a spec without views"
        )
    if spec.post_process.threshold is not None:
        raise InputError(f"{spec.name} has a threshold, MONAI's side takes the likeliest class", "compare a spec without a threshold")


class MonaiSegmenter:
    """The reference network with MONAI's sliding windows, over the full volume or over the box of its foreground.

    Args:
        session: the PyTorch reference, opened for one window.
        spec: its spatial policy is the sliding window.
        foreground: crop to `CropForeground`'s box (any modality above 0) before sliding.
    """

    def __init__(self, session: Session, spec: ModelSpec, *, foreground: bool) -> None:
        if not isinstance(spec.spatial, SlidingWindow):
            raise TypeError(f"{spec.spatial.kind} has no windows")
        self.session, self.spec, self.policy, self.foreground = session, spec, spec.spatial, foreground
        self.windows = 0

    def segment_files(self, files: CaseFiles, out: Path, clock: Clock) -> None:
        """Segment one case and write `out`; `clock` gets the seconds, `windows` the number of windows."""
        self.windows = 0
        with clock.stage("total"):
            with clock.stage("read"):
                case = read_case(files, self.spec.modalities)
            with clock.stage("normalise"):
                # The foreground is looked for in raw intensities, but on the grid that the windows slide over.
                raw = np.stack(whole_volumes(case, self.spec.model_copy(update={"normalisation": "none", "histogram": None})))
                box = self._box(raw)
                image = box.view(np.stack(whole_volumes(case, self.spec)))
                case = dataclasses.replace(case, images={}, label=None)
            values = box.paste(self._slide(image, clock))
            label = finish(values, case, self.spec, clock)
            with clock.stage("write"):
                write_label_map(label, case, out)

    def _box(self, raw: Image) -> CropBox:
        """The whole volume, or the foreground as MONAI finds it: where any modality is above 0."""
        x, y, z = raw.shape[1:]
        if not self.foreground:
            return CropBox(start=(0, 0, 0), size=(x, y, z), shape=(x, y, z))
        import torch
        from monai.transforms.croppad.array import CropForeground

        first, last = CropForeground().compute_bounding_box(torch.from_numpy(raw))
        start, end = [int(edge) for edge in first], [int(edge) for edge in last]
        return CropBox(
            start=(start[0], start[1], start[2]), size=(end[0] - start[0], end[1] - start[1], end[2] - start[2]), shape=(x, y, z)
        )  # fmt: skip

    def _slide(self, image: Image, clock: Clock) -> NDArray[np.uint8]:
        """Canonical labels uint8 (x, y, z) of the likeliest class; what MONAI does around the network is counted as "blend"."""
        import torch
        from monai.inferers.utils import sliding_window_inference

        def predict(window: torch.Tensor) -> torch.Tensor:
            self.windows += 1
            with inner.stage("normalise"):
                batch = normalise_after_crop(window.numpy()[0], self.spec.normalisation)
            with inner.stage("infer"):
                return torch.from_numpy(self.session.infer(batch[None]))

        inner, whole = Clock(), Clock()
        with whole.stage("slide"):
            mean = sliding_window_inference(
                torch.from_numpy(np.ascontiguousarray(image))[None], self.policy.size, WINDOWS_AT_ONCE, predict,
                overlap=self.policy.overlap, mode=self.policy.blending, padding_mode="constant",
            )  # fmt: skip
            winner = mean[0].argmax(dim=0).numpy()
            values: NDArray[np.uint8] = np.array(self.spec.labels, dtype=np.uint8)[winner]
        around = whole.seconds["slide"] - sum(inner.seconds.values())
        for stage, seconds in {**inner.seconds, "blend": around}.items():
            clock.seconds[stage] = clock.seconds.get(stage, 0.0) + seconds
        return values
