"""PyTorch on the CPU: the reference everything else is compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, MissingDependencyError, SpecError
from edge_latup.runtimes.audit import Audit, AuditedLayer, precision_name
from edge_latup.runtimes.base import Batch, Kernel, RuntimeInfo, SessionOptions, check_batch, fixed_shape, installed
from edge_latup.runtimes.macs import convolution_macs, dense_macs
from edge_latup.spec import Size

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edge_latup.networks.base import SegmentationNetwork


def is_available() -> bool:
    """Whether torch and safetensors are installed."""
    return installed("torch") and installed("safetensors")


def describe() -> RuntimeInfo:
    """Version and devices."""
    import torch

    return RuntimeInfo(name="pytorch", version=torch.__version__, devices=("CUDA", "CPU") if torch.cuda.is_available() else ("CPU",))


def open(artifact: Artifact, options: SessionOptions) -> PyTorchSession:  # noqa: A001  (the Protocol's verb)
    """Load the checkpoint artifact in eval mode, float32.

    Raises:
        ArtifactError: the weights are damaged, or are not the network the spec declares.
        MissingDependencyError: another float precision than FP32 was asked for.
    """
    import torch

    from edge_latup.networks.build import load_network

    if options.float_precision not in (None, "fp32"):
        raise MissingDependencyError(f"the PyTorch reference runs in fp32, not {options.float_precision}", "use --runtime openvino")
    torch.set_num_threads(options.thread_count)
    try:
        network = load_network(artifact.model_path, artifact.manifest.spec)
    except SpecError as error:
        raise ArtifactError(f"PyTorch cannot load {artifact.model_path}: {error.message}", "make the artifact again") from error
    return PyTorchSession(network, artifact, options.input_size)


class PyTorchSession:
    """A network in eval mode."""

    def __init__(self, network: SegmentationNetwork, artifact: Artifact, size: Size | None = None) -> None:
        self._network, self._manifest, self._size = network, artifact.manifest, size

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, D, H, W); -1 where the size is free."""
        own = self._manifest.input_shape
        return own if self._size is None else (*own[:2], *self._size)

    @property
    def float_precision(self) -> str:
        """Dtype of the first parameter, as the other runtimes name it."""
        import torch

        dtype = next(self._network.parameters()).dtype
        return {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}.get(dtype, str(dtype))

    def infer(self, batch: Batch) -> Batch:
        """See `Session.infer`."""
        # PyTorch takes no read-only array; one that can be written to is not copied.
        import numpy as np
        import torch

        checked = np.require(check_batch(batch, self.input_shape, self._manifest.spec.divisor), requirements="W")
        with torch.inference_mode():
            output: Batch = self._network(torch.from_numpy(checked)).numpy()
        return output

    def executed_kernels(self) -> Sequence[Kernel]:
        """One entry per module that computes; eager PyTorch fuses nothing."""
        leaves = ((name, module) for name, module in self._network.named_modules() if not any(module.children()))
        return [
            Kernel(name=name, operation=type(module).__name__, precision=self.float_precision, implementation="eager")
            for name, module in leaves
        ]

    def audit(self) -> Audit:
        """See `Session.audit`: the modules that multiply, as declared. Nothing is profiled."""
        import torch

        shape, layers = fixed_shape(self.input_shape, self._manifest.spec), []

        def note(name: str, module: nn.Module, read: torch.Tensor, output: torch.Tensor) -> None:
            if (macs := _macs(module, read, output)) is not None:
                layers.append(
                    AuditedLayer(
                        name=name, operation=type(module).__name__, declared=self._manifest.precision,
                        executed=precision_name(self.float_precision), kernel="eager", macs=macs,
                    )
                )  # fmt: skip

        # On the meta device shapes are computed and nothing else; the copy leaves the session's network alone.
        network = copy.deepcopy(self._network).to("meta")
        for name, module in network.named_modules():
            module.register_forward_hook(lambda module, read, output, name=name: note(name, module, read[0], output))
        with torch.inference_mode():
            network(torch.empty(shape, device="meta"))
        return Audit(runtime="pytorch", input_shape=shape, layers=tuple(layers))

    def activation_bytes(self) -> int | None:
        """None: eager PyTorch takes and frees as it goes."""
        return None

    def __enter__(self) -> PyTorchSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._network


def _macs(module: nn.Module, read: torch.Tensor, output: torch.Tensor) -> int | None:
    """Multiply-accumulates of a convolution or dense layer; None for any other module."""
    from torch.nn import Linear
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    if isinstance(module, _ConvNd):
        return convolution_macs((read if isinstance(module, _ConvTransposeNd) else output).shape, module.weight.shape)
    return dense_macs(output.shape, module.in_features) if isinstance(module, Linear) else None
