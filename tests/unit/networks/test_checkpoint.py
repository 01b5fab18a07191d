"""Checkpoints come back as they were saved, and nothing else is loaded: by tensor shape, not by name, and never a pickle."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import tree
from tiny_network import SEEN, random_network, tiny_spec, write_checkpoint
from torch import nn

from edge_latup.errors import SpecError
from edge_latup.networks.build import (
    SEEN_NAME,
    SPEC_NAME,
    WEIGHTS_NAME,
    build,
    load_checkpoint,
    load_network,
    save_checkpoint,
    seen_cases,
)
from edge_latup.networks.latup_net import LatupNet
from edge_latup.spec import ModelSpec, NetworkSpec

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def change(checkpoint: Path, edit: Callable[[Tensors], Tensors]) -> None:
    path = checkpoint / WEIGHTS_NAME
    save_file(edit({name: tensor.clone() for name, tensor in load_file(path).items()}), path)


def refused(checkpoint: Path) -> str:
    with pytest.raises(SpecError) as caught:
        load_checkpoint(checkpoint)
    assert caught.value.hint
    assert str(checkpoint) in caught.value.message
    return caught.value.message


def test_a_checkpoint_comes_back_as_it_was_saved(checkpoint: Path) -> None:
    network, spec = load_checkpoint(checkpoint)
    assert spec == tiny_spec()
    assert not network.training
    for name, tensor in random_network().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_every_declared_option_is_built(tmp_path: Path) -> None:
    spec = tiny_spec(in_channels=2, width=16, attention=False, upsample="trilinear")
    network, _ = load_checkpoint(write_checkpoint(tmp_path, spec))
    assert (network.in_channels, network.output.in_channels, network.upsample) == (2, 16, "trilinear")
    assert isinstance(network.bottleneck, nn.Identity)
    assert build(NetworkSpec()).state_dict().keys() == LatupNet().state_dict().keys()


def test_weights_are_saved_in_float32_whatever_the_network_is_in(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, random_network().bfloat16(), tiny_spec())
    assert {tensor.dtype for tensor in load_file(tmp_path / WEIGHTS_NAME).values()} == {torch.float32}


def test_a_half_precision_checkpoint_becomes_a_float32_network(checkpoint: Path) -> None:
    change(checkpoint, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    network, _ = load_checkpoint(checkpoint)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_saving_replaces_what_was_there_and_leaves_nothing_else(checkpoint: Path) -> None:
    names = set(tree(checkpoint))
    save_checkpoint(checkpoint, random_network(seed=5), tiny_spec())
    assert set(tree(checkpoint)) == names == {WEIGHTS_NAME, SPEC_NAME, SEEN_NAME}
    assert torch.equal(load_checkpoint(checkpoint)[0].output.weight, random_network(seed=5).output.weight)


def test_the_cases_it_was_trained_on_are_told(checkpoint: Path) -> None:
    assert seen_cases(checkpoint) == SEEN
    (checkpoint / SEEN_NAME).unlink()
    assert seen_cases(checkpoint) == ()


def test_a_damaged_list_of_seen_cases_is_not_taken_for_an_empty_one(checkpoint: Path) -> None:
    (checkpoint / SEEN_NAME).write_text('{"cases": [{"name": "x"')
    with pytest.raises(SpecError, match=SEEN_NAME):
        seen_cases(checkpoint)


@pytest.mark.parametrize("missing", [WEIGHTS_NAME, SPEC_NAME])
def test_a_missing_file_is_named(checkpoint: Path, missing: str) -> None:
    (checkpoint / missing).unlink()
    assert missing in refused(checkpoint)


def test_what_is_no_checkpoint_folder_is_refused(tmp_path: Path) -> None:
    assert "is not a checkpoint" in refused(tmp_path)
    assert "is not a checkpoint" in refused(tmp_path / "nowhere")
    (tmp_path / "model.pt").write_bytes(b"weights")
    assert "is not a checkpoint" in refused(tmp_path / "model.pt")


def test_a_spec_without_a_network_is_refused(checkpoint: Path) -> None:
    (checkpoint / SPEC_NAME).write_text(ModelSpec(name="nameless").model_dump_json())
    assert "declares no network" in refused(checkpoint)


def test_an_unknown_key_of_the_spec_is_named(checkpoint: Path) -> None:
    content = json.loads((checkpoint / SPEC_NAME).read_text())
    content["network"]["widht"] = content["network"].pop("width")
    (checkpoint / SPEC_NAME).write_text(json.dumps(content))
    assert "unknown key 'widht' in NetworkSpec; did you mean 'width'?" in refused(checkpoint)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b[:4], lambda _: b"", lambda b: b"\xff" * 8 + b[8:], lambda b: b + b"\0"],
)
def test_damaged_weights_are_refused(checkpoint: Path, damage: Callable[[bytes], bytes]) -> None:
    path = checkpoint / WEIGHTS_NAME
    path.write_bytes(damage(path.read_bytes()))
    assert "is not a readable safetensors file" in refused(checkpoint)


def test_a_network_with_cubic_decoder_kernels_is_refused_by_shape_though_every_name_fits(checkpoint: Path) -> None:
    """The third-party "LATUPNet": 3^3 where LATUP-Net has 2^3."""

    def widen(tensors: Tensors) -> Tensors:
        for stage in (3, 2, 1):
            name = f"decoder{stage}.up_conv.conv.weight"
            tensors[name] = torch.zeros(*tensors[name].shape[:2], 3, 3, 3)
        return tensors

    change(checkpoint, widen)
    message = refused(checkpoint)
    assert "decoder3.up_conv.conv.weight is (32, 32, 3, 3, 3), expected (32, 32, 2, 2, 2)" in message


def test_another_width_is_refused(checkpoint: Path) -> None:
    (checkpoint / SPEC_NAME).write_text(tiny_spec(width=16).model_dump_json())
    assert "encoder1.embedding.0.weight is (8, 3, 3, 3, 3), expected (16, 3, 3, 3, 3)" in refused(checkpoint)


def test_missing_and_unknown_tensors_are_named(checkpoint: Path) -> None:
    change(checkpoint, lambda tensors: {"head" if name == "output.bias" else name: tensor for name, tensor in tensors.items()})
    message = refused(checkpoint)
    assert "output.bias is missing" in message
    assert "head is not known" in message


def test_attention_left_out_of_the_weights_is_noticed(checkpoint: Path) -> None:
    change(checkpoint, lambda tensors: {name: tensor for name, tensor in tensors.items() if "attention" not in name})
    assert "decoder1.attention.excite.weight is missing" in refused(checkpoint)


def test_integer_weights_are_refused(checkpoint: Path) -> None:
    change(checkpoint, lambda tensors: {**tensors, "output.weight": tensors["output.weight"].to(torch.int8)})
    assert "torch.int8 values in output.weight" in refused(checkpoint)


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [lambda bomb, path: path.write_bytes(pickle.dumps(bomb)), torch.save], ids=["pickle", "torch.save"])
def test_a_pickle_is_refused_and_never_executed(checkpoint: Path, tmp_path: Path, write: Callable[[Bomb, Path], object]) -> None:
    proof = tmp_path / "executed"
    weights = checkpoint / WEIGHTS_NAME
    write(Bomb(proof), weights)
    assert "is not a readable safetensors file" in refused(checkpoint)
    with pytest.raises(SpecError):
        load_network(weights, tiny_spec())
    assert not proof.exists()
    pickle.loads(pickle.dumps(Bomb(proof)))
    assert proof.exists()  # it would have
