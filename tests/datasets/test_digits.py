"""The digits are scikit-learn's, spread over 0..255."""

import pytest
import torch
from sklearn.datasets import load_digits

from ganforge.datasets.digits import digits
from ganforge.datasets.samples import DataError


def test_digits_are_scikit_learns():
    data, source = digits(), load_digits()
    assert (len(data), data.shape, data.num_classes) == (1797, (1, 8, 8), 10)
    assert data.data.dtype == torch.uint8
    assert (data.data.min(), data.data.max()) == (0, 255)
    assert torch.equal(data.labels, torch.from_numpy(source.target))
    levels = data.data[:, 0].double() * 16 / 255
    assert (levels - torch.from_numpy(source.images)).abs().max() < 0.04


def test_batch_and_items_agree_and_labels_can_be_dropped():
    data = digits(num_classes=0)
    indices = torch.randint(len(data), (5,))
    assert torch.equal(data.batch(indices), torch.stack([data[i] for i in indices.tolist()]))
    assert data.num_classes == 0
    assert data.labels.eq(0).all()


def test_other_sizes_keep_the_picture():
    small, large = digits(), digits(image_size=16)
    assert large.shape == (1, 16, 16)
    back = torch.nn.functional.avg_pool2d(large.data.float(), 2)
    correlation = torch.corrcoef(torch.stack([back.flatten(), small.data.float().flatten()]))[0, 1]
    assert correlation > 0.97


def test_fingerprint_tells_a_pixel_and_a_label():
    data = digits()
    before = data.fingerprint()
    assert before == digits().fingerprint()
    index = int(torch.randint(len(data), ()))
    data.data[index, 0, 3, 3] ^= 1
    changed = data.fingerprint()
    data.labels[index] = (data.labels[index] + 1) % 10
    assert len({before, changed, data.fingerprint()}) == 3


@pytest.mark.parametrize("fact", [{"channels": 3}, {"num_classes": 9}, {"image_size": 0}])
def test_refuses(fact):
    (key, value), *_ = fact.items()
    with pytest.raises(DataError, match=f"data.{key}={value}"):
        digits(**fact)
