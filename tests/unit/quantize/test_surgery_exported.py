"""All passes on what an exporter leaves of real modules, against PyTorch; and on the demo network at its real size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_graphs import operations, run
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge_latup.artifact import Artifact
from edge_latup.bench.demo import demo_checkpoint
from edge_latup.export.torch_onnx import export_onnx
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.surgery import PASSES, rewrite
from edge_latup.quantize.surgery.passes import DEFAULT


class Mixed(nn.Module):
    """Parallel convolutions under one norm, dropout, odd widths, a deconvolution that tiles, an up-sampling."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv3d(2, 6, kernel, padding=kernel // 2) for kernel in (1, 3))
        self.norm, self.drop, self.act = nn.BatchNorm3d(12), nn.Dropout(0.5), nn.LeakyReLU(0.1)
        self.inner, self.inner_norm = nn.Conv3d(12, 5, 3, padding=1), nn.InstanceNorm3d(5, affine=True)
        self.down, self.up, self.even = nn.Conv3d(5, 6, 2, 2), nn.ConvTranspose3d(6, 4, 2, 2), nn.Conv3d(4, 3, 2)
        for values in (self.norm.running_mean, self.norm.running_var, self.norm.weight.data, self.inner_norm.bias.data):
            assert values is not None
            values.uniform_(0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(torch.cat([branch(x) for branch in self.branches], 1)))
        y = self.down(self.act(self.inner_norm(self.inner(self.drop(y)))))
        up = F.interpolate(self.up(y), scale_factor=2.0)
        result: Tensor = self.even(F.pad(up, (0, 1, 0, 1, 0, 1)))
        return result


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """The ONNX file of a `Mixed` network, an image, and what PyTorch makes of it."""
    torch.manual_seed(0)
    network, image = Mixed().eval(), torch.rand(1, 2, 8, 8, 8)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    program = torch.onnx.export(network, (image,), dynamo=True, opset_version=20, external_data=False, verbose=False)
    assert program is not None
    program.save(path)
    with torch.inference_mode():
        return path, image.numpy(), network(image).numpy()


CHANGES = {
    "remove-no-ops": 0, "fold-batch-norm": 1, "fuse-upsampling": 1, "transposed-to-shuffle": 1, "shuffle-to-transposed": 1,
    "pad-channels-8": 3, "pad-channels-16": 3, "pad-channels-32": 3,
}  # fmt: skip


@pytest.mark.parametrize("passes", [DEFAULT, tuple(PASSES), ("transposed-to-shuffle", "fuse-upsampling")], ids=["default", "all", "some"])
def test_an_exported_network_keeps_its_output(
    passes: tuple[str, ...], exported: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    import onnx

    path, image, expected = exported
    noted = {value.name for value in onnx.load(path).graph.value_info}
    assert rewrite(path, tmp_path / "once.onnx", passes) == {name: CHANGES[name] for name in passes}
    model = onnx.load(tmp_path / "once.onnx")
    np.testing.assert_allclose(run(model, image)[0], expected, rtol=1e-4, atol=1e-5)
    assert {value.name for value in model.graph.value_info} <= noted, "sizes that were only looked up are not written"
    assert not {"BatchNormalization", "Dropout"} & set(operations(model)) or passes[0] not in DEFAULT
    again = {name: 0 for name in passes if "shuffle" not in name}
    assert rewrite(tmp_path / "once.onnx", tmp_path / "twice.onnx", tuple(again)) == again


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The demo network at 128 x 128 x 128."""
    return export_onnx(demo_checkpoint(), tmp_path_factory.mktemp("demo") / "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_demo_network_moves_by_rounding_at_its_real_size(runtime: str, demo: Artifact, tmp_path: Path) -> None:
    made = quantize(demo, "rewrite", tmp_path / "made", runtime="openvino" if runtime == "openvino" else "onnxruntime")
    parity = made.manifest.parity[-1]
    assert parity.input_shape[2:] == (128, 128, 128)
    assert parity.max_abs <= 1e-4
    assert made.manifest.recipe[-1].parameters["passes"] == ["fuse-upsampling"]
