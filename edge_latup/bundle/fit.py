"""Does a set of artifacts suit the machine a bundle is for? What cannot work is refused; what works badly is told, with what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edge_latup.artifact import Artifact
from edge_latup.bundle.platforms import PLATFORMS, PlatformName
from edge_latup.errors import InputError
from edge_latup.manifest import RuntimeName
from edge_latup.runtimes import ARM, preferred_on
from edge_latup.spec import BrainCrop

FOR_ONNXRUNTIME: Final = {
    "int8": "edge-latup quantize ARTIFACT --method int8 --runtime onnxruntime --calibration CASES",
    "float": "the FP32 artifact of edge-latup export, which ONNX Runtime executes there",
}
ON_SITE: Final = (
    "{name} is for TensorRT, whose engine is built, tested and kept on the machine where this bundle is installed. TensorRT is not in the"
    " bundle: it comes with JetPack, or IT installs it for the Python that the bundle is installed with. Where it is missing or its engine"
    " does not pass the self-test, {fallback} is used, and the self-test says why. What must come out of the golden case was computed on a"
    " CPU as reference numerics (its graph in float, Q/DQ rounding as it stands), never executed in TensorRT."
)


def runtime_on(platform: PlatformName, artifact: Artifact) -> RuntimeName:
    """What will execute an artifact on a platform, which may prefer another runtime than this machine."""
    return preferred_on(PLATFORMS[platform].markers["platform_machine"], artifact)


def refuse_tensorrt(opened: Sequence[Artifact], platform: PlatformName, target: str, *, standalone: bool) -> None:
    """Refuse TensorRT artifacts where no engine could be built, or nothing could stand in for it.

    Raises:
        InputError: no artifact for another runtime follows, or the platform, target or policy is none for TensorRT.
        ArtifactError: no TensorRT of the target takes the file.
    """
    for place, artifact in enumerate(opened):
        if runtime_on(platform, artifact) != "tensorrt":
            continue
        name = artifact.folder
        if all(runtime_on(platform, later) == "tensorrt" for later in opened[place + 1 :]):
            raise InputError(
                f"{name} is for TensorRT, and no artifact for another runtime follows it to be used where no engine can be built",
                f"add a fallback behind it, such as the FP32 artifact it was made of: edge-latup package build {name} FP32 ...",
            )
        if standalone or not platform.startswith("linux"):
            what = "a program with its own Python cannot use the machine's TensorRT" if standalone else "TensorRT is used on Linux only"
            raise InputError(f"{name} is for TensorRT, but {what}", f"leave {name} out, or make a bundle with wheels for Linux")
        if isinstance(artifact.manifest.spec.spatial, BrainCrop):
            raise InputError(
                f"{name} is for TensorRT and its policy is brain-crop: an engine has one size, so every exam would need one of its own",
                "package an artifact whose policy is centre-crop or sliding-window",
            )
        _refuse_target(artifact, target)


def _refuse_target(artifact: Artifact, target: str) -> None:
    """Ask the target's profile before anything is sent there."""
    from edge_latup.runtimes.base import fixed_shape
    from edge_latup.targets.engine_limits import answers, refuse_everywhere
    from edge_latup.targets.profile import load_profile

    manifest = artifact.manifest
    shape = fixed_shape(manifest.input_shape, manifest.spec)
    refuse_everywhere(answers(artifact.model_path, load_profile(target), shape=shape), str(artifact.folder))


def warnings_for(opened: Sequence[Artifact], platform: PlatformName) -> tuple[str, ...]:
    """What is slower or less than it says on the target's processor, each with what to do."""
    if PLATFORMS[platform].markers["platform_machine"] not in ARM:
        return ()
    return tuple(_on_arm(artifact, others=len(opened) > 1) for artifact in opened if runtime_on(platform, artifact) == "openvino")


def _on_arm(artifact: Artifact, *, others: bool) -> str:
    """OpenVINO 2026.4's kernels on aarch64 were looked at in docs/aarch64.md."""
    name = artifact.folder.resolve().name
    if artifact.manifest.precision == "int8":
        falls = "another artifact of the bundle is used" if others else "nothing is segmented"
        return (
            f"{name} is INT8 for OpenVINO, which has no INT8 kernel for 3-D convolutions on aarch64 and computes them in FP32 with"
            f" reference kernels: its self-test there fails on the executed precision, and {falls}; make it for ONNX Runtime instead:"
            f" {FOR_ONNXRUNTIME['int8']}"
        )
    return (
        f"{name} runs on aarch64 in OpenVINO alone, which computes 3-D convolutions there with reference kernels: expect it to be slow;"
        f" package {FOR_ONNXRUNTIME['float']}"
    )


def notes_for(opened: Sequence[Artifact], platform: PlatformName) -> tuple[str, ...]:
    """What a bundle's README says of its artifacts: the warnings, and how TensorRT comes in."""
    names = [artifact.folder.resolve().name for artifact in opened]
    runtimes = [runtime_on(platform, artifact) for artifact in opened]
    other = next((name for name, runtime in zip(names, runtimes, strict=True) if runtime != "tensorrt"), "")
    on_site = [ON_SITE.format(name=name, fallback=other) for name, runtime in zip(names, runtimes, strict=True) if runtime == "tensorrt"]
    return (*on_site, *warnings_for(opened, platform))
