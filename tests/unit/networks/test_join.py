"""Concatenation is PyTorch's in value and gradient; what is its own is the layout of the gradients."""

from __future__ import annotations

import pytest
import torch

from edge_latup.networks.base import join


@pytest.mark.parametrize(("layout", "axes"), [(torch.channels_last_3d, 5), (torch.channels_last, 4), (torch.contiguous_format, 5)])
def test_a_join_is_torchs_and_its_gradients_keep_the_layout(layout: torch.memory_format, axes: int) -> None:
    torch.manual_seed(0)
    sizes = (4, 6, 5)[: axes - 2]
    first, second = torch.randn(2, 3, *sizes), torch.randn(2, 2, *sizes)
    found = []
    for together in (join, lambda parts: torch.cat(parts, dim=1)):
        parts = [part.detach().contiguous(memory_format=layout).requires_grad_() for part in (first, second)]
        inner = [part * 1.0 for part in parts]
        seen: list[torch.Tensor] = []
        for tensor in inner:
            tensor.register_hook(seen.append)
        joined = together(inner)
        (joined * torch.cos(joined)).sum().backward()
        found.append((joined.detach(), [part.grad for part in parts], seen))
    (ours, our_gradients, seen), (theirs, their_gradients, strided) = found
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    torch.testing.assert_close(our_gradients, their_gradients, rtol=0, atol=0)
    assert ours.is_contiguous(memory_format=layout)
    assert all(gradient.is_contiguous(memory_format=layout) for gradient in seen)
    assert not all(gradient.is_contiguous(memory_format=layout) for gradient in strided), "torch.cat needs no replacement any more"


def test_without_gradients_it_is_torchs_own() -> None:
    with torch.no_grad():
        joined = join([torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2, 2)])
    assert joined.shape == (1, 3, 2, 2)
    assert joined.grad_fn is None
