"""Layers that networks share: resampling against SciPy, equalised layers and minibatch deviation by hand."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.heads.projection import Projection
from ganforge.networks.layers.equalized import EqualizedConv2d, EqualizedLinear, equalized
from ganforge.networks.layers.minibatch_deviation import MinibatchDeviation
from ganforge.networks.layers.resampling import Filter

TAPS = [(1, 3, 3, 1), (1, 2, 1), (1, 1), (1, 2, 4, 1), (1, 4, 6, 4, 1)]


def upfirdn(x: np.ndarray, taps: tuple[int, ...], up: int, down: int) -> np.ndarray:
    """SciPy's, over rows and then columns of (B, C, H, W)."""
    line = np.array(taps) / sum(taps)
    for axis in (2, 3):
        x = scipy.signal.upfirdn(line, x, up, down, axis=axis)
    return x


@pytest.mark.parametrize("taps", TAPS)
def test_resampling_is_scipys_upfirdn(taps: tuple[int, ...]) -> None:
    print(f"seed {torch.seed()}")
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    # Convolutions here are correlations, which meet taps in the other order; up-sampling is the transposed one.
    filters = Filter(taps).double()
    whole = upfirdn(x.numpy(), taps, up=2, down=1) * 4
    begin = (len(taps) - 1) // 2
    cut = whole[:, :, begin : begin + 12, begin : begin + 16]
    np.testing.assert_allclose(filters.upsample(x).numpy(), cut, atol=1e-12)

    padding = len(taps) - 1
    blurred = upfirdn(x.numpy(), taps[::-1], up=1, down=1)
    np.testing.assert_allclose(filters.blur(x, padding).numpy(), blurred, atol=1e-12)
    down = blurred[:, :, padding - begin :: 2, padding - begin :: 2][:, :, :3, :4]
    np.testing.assert_allclose(filters.downsample(x).numpy(), down, atol=1e-12)


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 1)])
def test_a_constant_map_stays_so_but_for_the_border(taps: tuple[int, ...]) -> None:
    filters, x = Filter(taps), torch.full((1, 2, 8, 8), 3.0)
    for resampled in (filters.upsample(x), filters.downsample(x)):
        inner = resampled[:, :, 1:-1, 1:-1]
        torch.testing.assert_close(inner, torch.full_like(inner, 3.0))


def test_filters_are_no_part_of_a_saved_state() -> None:
    assert not Filter().state_dict()


def test_equalized_layers_scale_their_weights() -> None:
    linear = EqualizedLinear(12, 5, initial_bias=2.0, learning_rate=0.01)
    x = torch.randn(4, 12)
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight * 0.01 / math.sqrt(12)) + 2)
    conv = EqualizedConv2d(6, 5, 3, stride=2, padding=1)
    images = torch.randn(2, 6, 8, 8)
    expected = F.conv2d(images, conv.weight / math.sqrt(6 * 9), stride=2, padding=1)
    torch.testing.assert_close(conv(images), expected)


@pytest.mark.parametrize("learning_rate", [1.0, 0.01])
def test_equalized_layers_keep_the_size_and_move_at_one_speed(learning_rate: float) -> None:
    """N(0, 1) in, about N(0, 1) out; and a step of Adam moves what is added to weights by lr · c / sqrt(in)."""
    for features in (16, 1024):
        layer = EqualizedLinear(features, 2048, bias=False, learning_rate=learning_rate).double()
        x = torch.randn(64, features, dtype=torch.float64)
        assert layer(x).std().item() == pytest.approx(1, abs=0.1)
        before = layer.weight.detach() * layer.scale
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
        torch.autograd.backward(layer(x).square().sum())
        optimizer.step()
        moved = (layer.weight.detach() * layer.scale - before).abs().median().item()
        assert moved == pytest.approx(1e-3 * learning_rate / math.sqrt(features), rel=0.01)


def test_a_head_of_equalized_layers() -> None:
    head = Projection(8, 3, equalized)
    features, labels = torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1])
    assert head.label_embedding is not None
    assert isinstance(head.linear.weight, Tensor)
    assert isinstance(head.label_embedding.weight, Tensor)
    rows = head.linear.weight + head.label_embedding.weight[labels]
    torch.testing.assert_close(head(features, labels), (rows * features).sum(1) / math.sqrt(8))


def test_minibatch_deviation_by_hand() -> None:
    layer = MinibatchDeviation(group_size=3)
    x = torch.randn(6, 4, 2, 5)
    out = layer(x)
    assert torch.equal(out[:, :4], x)
    for group in (range(3), range(3, 6)):
        deviation = np.mean(
            [
                np.std([x[i, c, h, w].item() for i in group])
                for c in range(4)
                for h in range(2)
                for w in range(5)
            ]
        )
        torch.testing.assert_close(out[list(group), 4], torch.full((3, 2, 5), float(deviation)))


def test_minibatch_deviation_of_shares_is_that_of_the_whole() -> None:
    """Two ranks with half of the batch each, or real and fake images in one pass, make the same groups."""
    layer, x = MinibatchDeviation(group_size=4), torch.randn(16, 3, 2, 2)
    torch.testing.assert_close(torch.cat([layer(half) for half in x.chunk(2)]), layer(x))


@pytest.mark.parametrize(("batch", "size"), [(1, 1), (2, 2), (6, 2), (7, 1), (12, 4)])
def test_minibatch_deviation_of_odd_batches(batch: int, size: int) -> None:
    layer, x = MinibatchDeviation(group_size=4), torch.randn(batch, 3, 2, 2, requires_grad=True)
    out = layer(x)
    assert len(out[:, 3, 0, 0].unique()) == batch // size or size == 1
    torch.autograd.backward(out.sum())
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_minibatch_deviation_in_evaluation_is_the_average_over_training() -> None:
    layer = MinibatchDeviation(group_size=4)
    for _ in range(600):
        layer(torch.randn(8, 16, 4, 4) * 3)
    layer.eval()
    x = torch.randn(5, 16, 4, 4)
    plane = layer(x)[:, 16]
    assert plane.unique().numel() == 1
    assert plane[0, 0, 0].item() == pytest.approx(3 * 0.8, rel=0.1)  # E of the deviation of 4 is 0.80 of σ
    torch.testing.assert_close(layer(x[2:3])[0], layer(x)[2])


def test_equalized_layers_are_found_as_what_they_are() -> None:
    assert isinstance(equalized(nn.Linear(2, 3)), nn.Linear)
    assert isinstance(equalized(nn.Embedding(2, 3)), nn.Embedding)
