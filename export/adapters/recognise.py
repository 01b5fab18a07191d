"""What a path is, told by its content: names and magic bytes are read, nothing is loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final, Literal

from edge_latup.errors import ArtifactError

Source = Literal["onnx", "keras", "nnunet", "monai", "exported-program", "torchscript"]
TITLES: Final[dict[Source, str]] = {
    "onnx": "an ONNX file",
    "keras": "Keras weights",
    "nnunet": "an nnU-Net v2 trained folder",
    "monai": "a MONAI bundle",
    "exported-program": "a program of torch.export",
    "torchscript": "a TorchScript file",
}
HDF5: Final = b"\x89HDF\r\n\x1a\n"
TAKEN: Final = "ONNX, Keras weights of LATUP-Net, an nnU-Net v2 trained folder, a MONAI bundle, a .pt2 program or TorchScript"


def recognise(path: Path) -> Source:
    """What `path` is; a file of no other known kind is taken for ONNX, whose reader tells what is wrong with it.

    Raises:
        ArtifactError: it is something that is never imported, or a folder of no known kind; the hint is the way out.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", f"give {TAKEN}")
    with path.open("rb") as file:
        if file.read(len(HDF5)) == HDF5:
            return "keras"
    return _archive(path) if zipfile.is_zipfile(path) else "onnx"


def _folder(path: Path) -> Source:
    for folder in (path, path.parent):
        if (folder / "plans.json").is_file() and (folder / "dataset.json").is_file():
            return "nnunet"
    if (path / "configs" / "metadata.json").is_file():
        return "monai"
    if (path / "spec.json").is_file():
        raise ArtifactError(f"{path} is a checkpoint of this package", f"edge-latup export {path} --out ARTIFACT")
    if (path / "saved_model.pb").is_file():
        raise ArtifactError(f"{path} is a TensorFlow SavedModel", "save the weights in Keras (model.save_weights), or convert it to ONNX")
    raise ArtifactError(f"{path} is a folder of no known kind", f"give {TAKEN}")


def _archive(path: Path) -> Source:
    """A zip archive by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"{path} is a damaged archive: {error}", "copy it again") from error
    inner = {name.partition("/")[2] for name in names} | set(names)
    if "model.weights.h5" in names:
        return "keras"
    if "archive_format" in inner or "serialized_exported_program.json" in inner:
        return "exported-program"
    if "constants.pkl" in inner:
        return "torchscript"
    if "data.pkl" in inner:
        raise ArtifactError(
            f"{path} is a PyTorch checkpoint: weights without their network, in a pickle, which can run code when it is read",
            "give the nnU-Net folder or MONAI bundle it belongs to, or export the network where you trust its source: "
            "torch.onnx.export or torch.export.save",
        )
    if any(name.endswith(".npy") for name in names):
        raise ArtifactError(f"{path} is a NumPy archive, not a network", f"give {TAKEN}")
    raise ArtifactError(f"{path} is a zip archive of no known kind", f"give {TAKEN}")
