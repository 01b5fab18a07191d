"""The model spec: all that turns a case into a network's input and its output into a label map."""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from edge_latup.network_specs import AttentionResnetUnetSpec, ResUnetSpec
from edge_latup.records import Record

REGION_THRESHOLD: Final = 0.5
"""Probability above which a voxel belongs to a region, unless a spec says otherwise."""
Modality = Literal["flair", "t1ce", "t2", "t1"]
MODALITIES: Final[tuple[Modality, ...]] = ("flair", "t1ce", "t2", "t1")
Region = Literal["WT", "TC", "ET"]
REGIONS: Final[dict[Region, tuple[int, ...]]] = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
"""BraTS regions as sets of canonical labels: 1 necrotic core, 2 oedema, 3 enhancing tumour."""
LABELS: Final = (0, 1, 2, 3)
"""Every canonical label."""
Normalisation = Literal["per_volume_postcrop", "per_slice_precrop", "z_score_nonzero", "z_score_mask", "z_score_volume", "none"]
"""What each modality is scaled by: the range of what the network sees, the range of each axial slice, the mean and deviation of
the volume's voxels that are not zero (which stay zero outside), of those where any modality is not zero, holes filled (nnU-Net's
mask), of all voxels (with `inside`, of all that windows see), or nothing, where the network does it itself."""
Size = tuple[int, int, int]
Margin = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Millimetres = Annotated[float, Field(gt=0)]
Blending = Literal["constant", "gaussian", "gaussian_nnunet"]
View = Literal["identity", "mirror", "rotate", "mirror_y", "mirror_z", "mirror_xy", "mirror_xz", "mirror_yz", "mirror_xyz"]
"""How the network is shown the case: as it is, mirrored left to right, turned by 90 degrees in the axial plane, or mirrored along
the axes that are named."""


class NetworkSpec(Record):
    """LATUP-Net's constructor arguments."""

    family: Literal["latup-net"] = "latup-net"
    in_channels: int = Field(3, ge=1)
    out_channels: int = Field(4, ge=2)
    width: int = Field(32, ge=8, multiple_of=8)
    attention: bool = True
    upsample: Literal["nearest", "trilinear"] = "nearest"

    @property
    def divisor(self) -> int:
        """Every size is halved three times."""
        return 8


AnyNetwork = NetworkSpec | AttentionResnetUnetSpec | ResUnetSpec


def _family(network: Any) -> str:
    """Which network a checkpoint belongs to; files that name none are older than the others."""
    found = network.get("family", "latup-net") if isinstance(network, dict) else getattr(network, "family", "")
    return str(found)


AnyNetworkSpec = Annotated[
    Annotated[NetworkSpec, Tag("latup-net")]
    | Annotated[AttentionResnetUnetSpec, Tag("attention-resnet-unet")]
    | Annotated[ResUnetSpec, Tag("res-unet")],
    Discriminator(_family),
]


class Landmarks(Record):
    """One modality's intensities at the quantiles of a histogram reference."""

    modality: Modality
    values: tuple[float, ...]
    """Never descending, in what the normalisation gives."""

    @model_validator(mode="after")
    def _consistent(self) -> Landmarks:
        if any(first > then for first, then in itertools.pairwise(self.values)) or not all(map(math.isfinite, self.values)):
            raise ValueError(f"the values of {self.modality} must be finite and never descend, got {self.values}")
        return self


class HistogramReference(Record):
    """Intensities that every case is brought to: those at some quantiles of the head's voxels, for each modality.

    Between these landmarks a volume is mapped linearly (Nyul, Udupa, Zhang, IEEE Trans. Med. Imaging 19(2), 2000).
    """

    quantiles: Annotated[tuple[Share, ...], Field(min_length=2)]
    """Ascending, from 0 to 1."""
    landmarks: tuple[Landmarks, ...]

    @model_validator(mode="after")
    def _consistent(self) -> HistogramReference:
        ascending = all(first < then for first, then in itertools.pairwise(self.quantiles))
        if not ascending or (self.quantiles[0], self.quantiles[-1]) != (0, 1):
            raise ValueError(f"quantiles must ascend from 0 to 1, got {self.quantiles}")
        if wrong := [one for one in self.landmarks if len(one.values) != len(self.quantiles)]:
            raise ValueError(f"{wrong[0].modality} has {len(wrong[0].values)} values for {len(self.quantiles)} quantiles")
        return self

    def of(self, modality: Modality) -> tuple[float, ...] | None:
        """The values of a modality, None where the reference has none."""
        return next((one.values for one in self.landmarks if one.modality == modality), None)


class CentreCrop(Record):
    """One pass over the centre of the volume; outside it the result is background (LATUP-Net's published protocol).

    On the BraTS grid (240 x 240 x 155) a 128^3 crop is x 56:184, y 56:184, z 13:141. A smaller volume is padded with zeros.
    """

    kind: Literal["centre-crop"] = "centre-crop"
    size: Size = (128, 128, 128)


class BrainCrop(Record):
    """One pass over the bounding box of the head, widened to the network's divisor: the whole head, and no air around it."""

    kind: Literal["brain-crop"] = "brain-crop"
    size: Size = (128, 128, 128)
    """A typical crop, for which the model is exported, calibrated and timed; a case's own crop is as large as its head."""


class SlidingWindow(Record):
    """Overlapping windows whose probabilities are averaged; the last window of each axis is aligned with the volume's end."""

    kind: Literal["sliding-window"] = "sliding-window"
    size: Size = (128, 128, 128)
    overlap: float = Field(0.25, ge=0, lt=1)
    blending: Blending = "constant"
    """Weight of a window's voxels in the average: all alike, or a Gaussian that trusts the window's middle more than its border
    (as MONAI samples it, or as nnU-Net does: around voxel size / 2, without a floor)."""
    steps: Literal["fixed", "even"] = "fixed"
    """Windows a fixed stride apart and a last one aligned with the end (MONAI's), or as many, evenly spread (nnU-Net's)."""
    inside: Literal["volume", "nonzero"] = "volume"
    """Where windows lie: in the whole volume, or in the box of the voxels where any modality is not zero, as if the volume ended there."""
    skip_air: bool = True
    """Leave out windows that hold no voxel of the head; what no window covers is background."""


Spatial = Annotated[CentreCrop | BrainCrop | SlidingWindow, Field(discriminator="kind")]


class PostProcess(Record):
    """What is done to the label map after the network. The defaults change nothing."""

    min_component_voxels: int = Field(0, ge=0)
    """Connected components of one class with fewer voxels become background."""
    min_tumour_voxels: int = Field(0, ge=0)
    """Connected components of tumour, of all classes together, with fewer voxels become background."""
    min_enhancing_voxels: int = Field(0, ge=0)
    """Enhancing tumour with fewer voxels in all becomes necrotic core."""
    connectivity: Literal[6, 18, 26] = 26
    """Which voxels touch: those that share a face, an edge too, or a corner too."""
    threshold: float | None = Field(None, gt=0, lt=1)
    """Least probability of a tumour class; voxels below it become background. None takes the likeliest class, whatever its probability.
    Of regions, the probability above which a voxel belongs to one; None is 0.5."""


class RegionHead(Record):
    """Output channels that are probabilities of regions, which may overlap, instead of classes."""

    order: Annotated[tuple[Region, ...], Field(min_length=1)]
    """The region of each output channel."""
    paint: tuple[tuple[Region, Annotated[int, Field(ge=1, le=3)]], ...] = (("WT", 2), ("TC", 1), ("ET", 3))
    """How a label map is made of them: in this order, every voxel whose probability is above the threshold takes the label, over
    what was painted before. The default is nnU-Net's for BraTS."""
    nested: bool = False
    """Paint a region only where those painted before it hold: the masks of a cascade."""

    @model_validator(mode="after")
    def _consistent(self) -> RegionHead:
        painted = [region for region, _ in self.paint]
        if len(set(self.order)) != len(self.order) or len(set(painted)) != len(painted):
            raise ValueError(f"regions must be distinct, got order {self.order} and paint {tuple(painted)}")
        if missing := [region for region in self.order if region not in painted]:
            raise ValueError(f"paint gives {missing[0]} no label, such as [{missing[0]!r}, {REGIONS[missing[0]][0]}]")
        return self


class ModelSpec(Record):
    """Everything about a model that is not its weights. Spatial axes are in `orientation` order."""

    schema_version: Literal[1] = 1
    name: str
    network: AnyNetworkSpec | None = None
    modalities: tuple[Modality, ...] = ("flair", "t1ce", "t2")
    orientation: Annotated[str, Field(pattern="^[LR][AP][SI]$")] = "LPS"
    normalisation: Normalisation = "per_volume_postcrop"
    histogram: HistogramReference | None = None
    """What each modality's histogram is matched to after the normalisation; None leaves it as it is."""
    resize: Size | None = None
    """Grid that the whole volume is brought to, linearly, before anything is cut out of it; the label map is brought back from it
    by nearest neighbour. None keeps the case's own."""
    spatial: Spatial = CentreCrop()
    views: Annotated[tuple[View, ...], Field(min_length=1)] = ("identity",)
    """Test-time augmentation. Ties of a vote go to the largest mean probability."""
    views_by: Literal["vote", "mean"] = "vote"
    """One label map for each view, then the majority's vote; or one label map of the views' mean."""
    averaging: Literal["probabilities", "logits"] = "probabilities"
    """What windows that overlap (and views, by mean) give the mean of. Logits are recovered from the probabilities."""
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = None
    """Voxel size in millimetres along the axes that the network was trained on; cases of another are refused. None takes all."""
    post_process: PostProcess = PostProcess()
    labels: tuple[int, ...] = LABELS
    """Canonical label of each output channel."""
    regions: RegionHead | None = None
    """Where the output channels are regions; `labels` then says nothing and is left at its default."""
    output_margin: tuple[Margin, Margin, Margin] = (0, 0, 0)
    """Voxels by which the output is smaller than the input, on each side of each axis: 4 where 19 slices go in and 11 come out."""
    divisor: int = Field(8, ge=1)
    """Every spatial size the network sees is a multiple of this."""
    licence: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if len(set(self.modalities)) != len(self.modalities) or not self.modalities:
            raise ValueError(f"modalities must be distinct and at least one, got {self.modalities}")
        bad = [size for size in self.spatial.size if size <= 0 or size % self.divisor]
        if bad:
            raise ValueError(f"spatial.size {self.spatial.size} must be positive multiples of {self.divisor}")
        if len(set(self.views)) != len(self.views):
            raise ValueError(f"views must be distinct, got {self.views}")
        if self.network is not None:
            self._matches_network(self.network)
        if self.resize is not None and min(self.resize) < 1:
            raise ValueError(f"resize must be positive sizes, got {self.resize}")
        if self.resize is not None and isinstance(self.spatial, SlidingWindow) and self.spatial.inside != "volume":
            raise ValueError(f"resize and windows inside {self.spatial.inside!r} exclude each other")
        if self.histogram is not None and (missing := [name for name in self.modalities if self.histogram.of(name) is None]):
            raise ValueError(f"the histogram reference has no {missing[0]}, which the network sees")
        if self.regions is not None and self.labels != LABELS:
            raise ValueError(f"output channels are labels or regions, not both: leave out labels {self.labels}")
        if conflict := self.margin_conflict():
            raise ValueError(conflict)
        return self

    def margin_conflict(self) -> str:
        """Why the output margin does not suit the spatial policy or the views, in words; empty where it does."""
        if not any(self.output_margin):
            return ""
        if isinstance(self.spatial, BrainCrop):
            return f"output_margin {self.output_margin} leaves a border unpredicted, so brain-crop would miss part of the head"
        if min(self.output_size) < 1:
            return f"spatial.size {self.spatial.size} leaves nothing inside output_margin {self.output_margin}"
        if "rotate" in self.views and self.output_margin[0] != self.output_margin[1]:
            return f"view rotate turns the axial plane, but output_margin {self.output_margin} is not square there"
        return ""

    def _matches_network(self, network: AnyNetwork) -> None:
        if self.divisor % network.divisor:
            raise ValueError(f"divisor {self.divisor} is not a multiple of {network.divisor}, which {network.family} needs")
        if self.regions is not None and network.family != "latup-net" and network.activation != "sigmoid":
            raise ValueError("a softmax makes channels exclude each other, regions overlap: the network's activation is sigmoid")
        if network.in_channels != len(self.modalities):
            raise ValueError(f"the network takes {network.in_channels} channels but {len(self.modalities)} modalities are declared")
        if network.out_channels != self.channels:
            raise ValueError(f"the network gives {network.out_channels} channels but {self.channels} {self.channel_kind} are declared")

    @property
    def input_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of one network input, (1, modalities, D, H, W)."""
        return (1, len(self.modalities), *self.spatial.size)

    @property
    def output_size(self) -> Size:
        """Spatial size of what the network gives for one input."""
        d, h, w = (side - 2 * margin for side, margin in zip(self.spatial.size, self.output_margin, strict=True))
        return (d, h, w)

    @property
    def channels(self) -> int:
        """How many channels the network gives."""
        return len(self.labels if self.regions is None else self.regions.order)

    @property
    def channel_kind(self) -> Literal["labels", "regions"]:
        """What an output channel stands for."""
        return "labels" if self.regions is None else "regions"

    @property
    def found_regions(self) -> tuple[Region, ...]:
        """Regions that the network can find; of the others its label maps say nothing."""
        if self.regions is not None:
            return tuple(region for region in REGIONS if region in self.regions.order)
        return tuple(region for region, labels in REGIONS.items() if set(labels) & set(self.labels))

    @property
    def digest(self) -> str:
        """SHA-256 of what it says; what it leaves at its default adds nothing, so it stays the same when others can say more."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()
