"""Inception is loaded the way a user's file is, and gives what torch-fidelity gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as inceptionv3
from PIL import Image
from torch import nn
from torch_fidelity import calculate_metrics

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.inception import Inception
from ganforge.evaluation.metrics.fid import FID
from ganforge.evaluation.metrics.kid import KID
from ganforge.evaluation.metrics.precision_recall import PrecisionRecall


@pytest.fixture(scope="module")
def weights_path(tmp_path_factory):
    """A file with random weights of the right shapes."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(inceptionv3.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = inceptionv3.FeatureExtractorInceptionV3("random", ["2048"])
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return str(path)


def prepared(*arguments, **options):
    extractor = Inception(*arguments, **options)
    extractor.prepare(None, "cpu", Cache())
    return extractor


def relative(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("size", [8, 320])
def test_features_and_logits_are_torch_fidelitys(weights_path, random_images, size):
    images = random_images(3, 3, size, size)
    before = torch.get_rng_state()
    extractor = prepared(weights_path)
    assert torch.equal(torch.get_rng_state(), before)
    features, logits = extractor.extract(images)
    theirs = inceptionv3.FeatureExtractorInceptionV3(
        "plain", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights_path
    )
    their_features, their_logits = theirs(images)
    assert features.shape == (3, 2048)
    assert logits.shape == (3, 1008)
    assert relative(features, their_features) < 2e-6
    assert relative(logits, their_logits) < 2e-6
    assert extractor.comparable_with_papers
    assert extractor.resize == "299x299, bilinear as in TensorFlow 1"
    assert len(extractor.weights_hash()) == 64


def test_grey_is_repeated_to_three_channels(weights_path, random_images):
    grey = random_images(2, 1, 8, 8)
    for resize in ("tensorflow", "clean"):
        extractor = prepared(weights_path, resize=resize)
        assert torch.equal(extractor.extract(grey)[0], extractor.extract(grey.repeat(1, 3, 1, 1))[0])


@pytest.mark.parametrize("size", [33, 400])
def test_clean_images_enter_the_network_unrounded(weights_path, random_images, size):
    images = random_images(2, 3, size, size)
    extractor = prepared(weights_path, resize="clean")
    seen = []
    entry = extractor.network.get_submodule("Conv2d_1a_3x3")
    handle = entry.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features, _ = extractor.extract(images)
    handle.remove()
    assert not entry._forward_pre_hooks
    pillow = [
        np.asarray(Image.fromarray(channel).resize((299, 299), Image.Resampling.BICUBIC))
        for channel in images.flatten(0, 1).float().numpy()
    ]
    expected = (torch.tensor(np.stack(pillow)).clamp(0, 255).unflatten(0, (2, 3)) - 128) / 128
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=0)
    # Rounded to uint8, the same pictures differ a little on the usual way, which has nothing left to resize.
    rounded = (expected * 128 + 128).round().to(torch.uint8)
    usual = prepared(weights_path)
    assert 1e-6 < relative(features, usual.extract(rounded)[0]) < 0.05
    assert extractor.comparable_with_papers
    assert extractor.resize != usual.resize


def test_both_protocols_are_one_where_nothing_is_resized(weights_path, random_images):
    images = random_images(2, 3, 299, 299)
    usual, clean = prepared(weights_path), prepared(weights_path, resize="clean")
    for ours, theirs in zip(clean.extract(images), usual.extract(images), strict=True):
        assert relative(ours, theirs) < 2e-6
    assert usual.weights_hash() == clean.weights_hash()


class TinyImages(torch.utils.data.Dataset):
    """Images in memory, as an evaluator sees a data set and as torch-fidelity does."""

    name, num_classes, class_names, split = "tiny", 0, (), None

    def __init__(self, images):
        self.images = images
        self.shape = tuple(images.shape[1:])
        self.labels = torch.zeros(len(images), dtype=torch.int64)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]

    def batch(self, indices):
        return self.images[indices]

    def fingerprint(self):
        return "tiny"


@pytest.mark.slow
def test_whole_figures_equal_torch_fidelity(weights_path, tmp_path, random_images):
    real, fake = random_images(2, 8, 3, 8, 8)
    fake //= 2  # darker: of two like distributions KID is the rounding of what cancels out
    metrics = {"fid": FID(), "kid": KID(subset_size=6), "precision_recall": PrecisionRecall()}
    evaluator = FeatureEvaluator(Inception(weights_path), metrics, 8, 8, cache_dir=str(tmp_path))
    evaluator.prepare(TinyImages(real), "cpu")
    ours = evaluator.evaluate([(fake / 127.5 - 1, torch.zeros(8, dtype=torch.int64))], conditional=True)
    theirs = calculate_metrics(
        input1=TinyImages(fake),
        input2=TinyImages(real),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=weights_path,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=6,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours["kid_mean"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert (ours["precision"], ours["recall"]) == (theirs["precision"], theirs["recall"])
