"""Whether a spec says of a foreign model what its file declares: outputs, input type, axes and fixed sizes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence

from edge_latup.errors import ArtifactError
from edge_latup.export.foreign_model import Foreign, Tensor, likely_output
from edge_latup.export.foreign_spec import HOUSE, LAYOUTS, ImportSpec, Layout, letters
from edge_latup.spec import MODALITIES, ModelSpec


def wanted_sizes(model: ModelSpec) -> dict[str, int]:
    """Size of each axis of the network's input by its letter in `HOUSE`."""
    return dict(zip(HOUSE, model.input_shape, strict=True))


def wrong_axes(shape: Sequence[int], order: str, model: ModelSpec) -> list[int]:
    """Axes whose fixed size is not what the spec gives for their letter."""
    want = wanted_sizes(model)
    return [axis for axis, (side, letter) in enumerate(zip(shape, order, strict=True)) if side not in (-1, want[letter])]


def check_output_name(foreign: Foreign) -> Tensor:
    """The output that is used.

    Raises:
        ArtifactError: none of that name, or several and none named.
    """
    outputs = foreign.model.outputs
    names, hint = [output.name for output in outputs], foreign.change("output", json.dumps(likely_output(foreign.model).name))
    listed = "; ".join(str(output) for output in outputs)
    asked = foreign.how.output or (names[0] if len(names) == 1 else None)
    if asked is None:
        raise ArtifactError(f"{foreign.path} has {len(outputs)} outputs: {listed}", hint)
    if asked not in names:
        raise ArtifactError(f"{foreign.path} has no output {asked!r}; it has: {listed}", hint)
    chosen = outputs[names.index(asked)]
    if chosen.dtype != "float32":
        remedy = "export the network so that this output is float32 probabilities or logits: without its last step, where that is ArgMax"
        raise ArtifactError(f"{foreign.path} gives {chosen}, which holds no probabilities", remedy)
    return chosen


def check_input(foreign: Foreign, inputs: Sequence[Tensor]) -> Tensor:
    """The one input; its type, rank and fixed sizes are what the spec says.

    Raises:
        ArtifactError: they are not, or there are several inputs; the message says what was found, the hint which line to change.
    """
    if len(inputs) != 1:
        listed = "; ".join(str(tensor) for tensor in inputs)
        raise ArtifactError(f"{foreign.path} takes {len(inputs)} inputs: {listed}", "a network that sees modalities only takes one")
    found, how = inputs[0], foreign.how
    if found.dtype != "float32":
        raise ArtifactError(
            f"{foreign.path} takes {found.dtype} ({found}); artifacts take float32",
            "export the network in float32 (PyTorch: network.float() before the export)",
        )
    if found.shape is None or len(found.shape) != len(how.layout):
        fitting = [layout for layout in LAYOUTS if found.shape is not None and len(layout) == len(found.shape)]
        hint = (
            foreign.change("layout", json.dumps(fitting[0])) if fitting else "a network takes (N, C, D, H, W) or (N, C, H, W), in any order"
        )
        raise ArtifactError(f"{foreign.path} takes {found}, layout {how.layout} has {len(how.layout)} axes", hint)
    if wrong := wrong_axes(found.shape, how.input_letters, foreign.spec.model):
        raise _misfit(foreign, found, found.shape, wrong)
    return found


def check_free(foreign: Foreign, found: Tensor) -> None:
    """Every spatial size is free in the file.

    Raises:
        ArtifactError: one is not.
    """
    sides = dict(zip(foreign.how.input_letters, found.shape or (), strict=True))
    if fixed := [f"{sides[letter]} along {letter}" for letter in "xyz" if sides[letter] != -1]:
        raise ArtifactError(
            f"{foreign.path} has fixed sizes: {', '.join(fixed)}", "leave out --dynamic, or export the network with free sizes"
        )


def _misfit(foreign: Foreign, found: Tensor, shape: tuple[int, ...], wrong: list[int]) -> ArtifactError:
    order, want = foreign.how.input_letters, wanted_sizes(foreign.spec.model)
    told = ", ".join(f"axis {axis} ({_called(order[axis])}) is {shape[axis]}, the spec says {want[order[axis]]}" for axis in wrong)
    return ArtifactError(f"{foreign.path} takes {found}, layout {foreign.how.layout} reads {order}: {told}", _remedy(foreign, shape, wrong))


def _called(letter: str) -> str:
    return {"C": "channels", "N": "batch"}.get(letter, f"size along {letter}")


def _remedy(foreign: Foreign, shape: tuple[int, ...], wrong: list[int]) -> str:
    """Another reading of the axes under which everything fits; else the number or size that does not."""
    order, model = foreign.how.input_letters, foreign.spec.model
    for layout, axes in _readings(foreign.how):
        if not wrong_axes(shape, letters(layout, axes), model):
            changes = {"layout": layout, "axes": axes}
            now = {"layout": foreign.how.layout, "axes": foreign.how.axes or axes_of(foreign.how.input_letters)}
            return "; ".join(foreign.change(key, json.dumps(value)) for key, value in changes.items() if value != now[key])
    channel = order.index("C")
    if channel in wrong:
        chosen = list(MODALITIES[: shape[channel]])
        if len(chosen) < shape[channel]:
            return f"artifacts have 1 to {len(MODALITIES)} modalities: {', '.join(MODALITIES)}"
        return f"{foreign.change('modalities', json.dumps(chosen))} (in the order the network was trained on)"
    if "N" in [order[axis] for axis in wrong]:
        return "export the network with a batch of 1, or a free one"
    sizes = {letter: side for letter, side in zip(order, shape, strict=True) if side != -1}
    return foreign.change("size", str([sizes.get(letter, side) for letter, side in zip("xyz", model.spatial.size, strict=True)]))


def axes_of(order: str) -> str:
    """The spatial letters of an order without the one a 2-D network's batch stands for, as `axes` is written."""
    return "".join(letter for letter in (order if len(order) == 5 else order[1:]) if letter in "xyz")


def _readings(how: ImportSpec) -> Iterator[tuple[Layout, str]]:
    """Other ways to read the axes, those with one change first."""
    now = (how.layout, how.axes or axes_of(how.input_letters))
    layouts = [layout for layout in LAYOUTS if len(layout) == len(how.layout)]
    every = [(layout, "".join(axes)) for layout in layouts for axes in itertools.permutations("xyz", len(how.layout) - 2)]
    yield from sorted(every, key=lambda reading: (reading[0] != now[0]) + (reading[1] != now[1]))
