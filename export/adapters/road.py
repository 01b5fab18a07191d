"""The one road of every import: recognise what a path is, bring it to ONNX or to a checkpoint, and make an artifact of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_latup.artifact import Artifact
from edge_latup.errors import EdgeLatupError, InputError
from edge_latup.export.adapters.recognise import TITLES, Source, recognise
from edge_latup.export.adapters.spec_text import as_comments
from edge_latup.export.foreign_spec import ForeignSpec


def import_any(
    models: Sequence[Path], out: Path, *, spec: Path | None = None, dynamic: bool = False, checkpoint: Path | None = None,
    overwrite: bool = False, note: Callable[[str], None] = lambda _: None,
) -> Artifact:  # fmt: skip
    """Import a model of any kind that is known.

    Args:
        models: one path, or several ONNX files, which are a chain.
        out: artifact folder to make.
        spec: spec.toml; needed where the model does not tell how it is fed, and replaces what it tells where it does.
        dynamic: leave free the sizes that are free.
        checkpoint: folder to keep the checkpoint in that Keras weights become.
        overwrite: replace an existing artifact.
        note: told what each path was recognised as.

    Raises:
        InputError: options that the kind does not take.
        ArtifactError, SpecError: it cannot be imported, or not safely; nothing is left behind.
        MissingDependencyError: a package that this kind needs is not installed.
    """
    source = recognise(models[0])
    note(f"importing {', '.join(str(model) for model in models)}: {TITLES[source]}")
    if len(models) > 1 and any(recognise(model) != "onnx" for model in models):
        raise InputError("several models are a chain of ONNX files", "import the others one at a time")
    if checkpoint is not None and source != "keras":
        raise InputError("--checkpoint belongs to Keras weights", "leave it out")
    if source == "keras":
        from edge_latup.export.adapters.keras_latup import import_keras

        if dynamic:
            raise InputError("--dynamic does not belong to Keras weights", "keep the --checkpoint, then edge-latup export it --dynamic")
        return import_keras(models[0], out, spec=spec, checkpoint=checkpoint, overwrite=overwrite)
    if source != "onnx":
        if dynamic:
            raise InputError(
                "--dynamic belongs to ONNX files", "sizes are those of the spec: change [spatial] size, or export to ONNX yourself"
            )
        return _import_module(source, models[0], out, spec, overwrite)
    from edge_latup.export.foreign import import_onnx

    if spec is None:
        hint = f"start with one: edge-latup import {models[0]} --describe > spec.toml"
        raise InputError("an import of ONNX needs --spec", hint)
    return import_onnx(models, spec, out, dynamic=dynamic, overwrite=overwrite)


def _import_module(source: Source, model: Path, out: Path, spec: Path | None, overwrite: bool) -> Artifact:
    if source == "nnunet":
        from edge_latup.export.adapters.nnunet import import_nnunet

        return import_nnunet(model, out, spec=spec, overwrite=overwrite)
    if source == "monai":
        from edge_latup.export.adapters.monai_bundle import import_bundle

        return import_bundle(model, out, spec=spec, overwrite=overwrite)
    from edge_latup.export.adapters.programs import import_program

    return import_program(model, out, script=source == "torchscript", spec=spec, overwrite=overwrite)


def describe_any(model: Path) -> tuple[dict[str, Any], str]:
    """What a model holds: as plain values for JSON, and as a text that is a spec.toml to start from.

    Raises:
        ArtifactError: it is nothing that is imported.
    """
    source = recognise(model)
    if source == "keras":
        from edge_latup.export.adapters import keras_describe

        return keras_describe.summary(model), keras_describe.describe(model)
    if source == "monai":
        return _describe_bundle(model)
    if source in ("exported-program", "torchscript"):
        from edge_latup.export.adapters.program_describe import describe_program

        return describe_program(model, script=source == "torchscript")
    if source == "nnunet":
        from edge_latup.export.adapters.nnunet import of_nnunet, read_nnunet
        from edge_latup.export.adapters.nnunet_spec import nnunet_spec
        from edge_latup.export.adapters.nnunet_spec import summary as facts_of

        folder = read_nnunet(model)
        with of_nnunet(folder.folder):
            return _with_spec(facts_of(folder), lambda: nnunet_spec(folder))
    from edge_latup.export.foreign_describe import describe, skeleton, summary
    from edge_latup.export.foreign_model import read_foreign

    found = read_foreign(model)
    return {**summary(found), "skeleton": skeleton(found)}, describe(found)


def _describe_bundle(model: Path) -> tuple[dict[str, Any], str]:
    from edge_latup.export.adapters import monai_bundle, monai_spec
    from edge_latup.export.adapters.monai_config import read_bundle

    bundle = read_bundle(model)
    return _with_spec(monai_bundle.summary(bundle), lambda: monai_spec.bundle_spec(bundle))


def _with_spec(facts: dict[str, Any], make: Callable[[], ForeignSpec]) -> tuple[dict[str, Any], str]:
    """Facts and the spec that was worked out, or why there is none."""
    try:
        text = make().text
    except EdgeLatupError as error:
        return {**facts, "skeleton": None, "reason": error.message}, as_comments({**facts, "no spec": error.message, "hint": error.hint})
    return {**facts, "skeleton": text}, as_comments(facts) + "\n" + text
