"""Inception is loaded the way a user's file is, and says what to do when its weights are not to be had."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as inceptionv3
from torch import nn
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.inception import Inception


@pytest.fixture(scope="module")
def weights_path(tmp_path_factory):
    """A file with random weights of the right shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(inceptionv3.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = inceptionv3.FeatureExtractorInceptionV3("random", ["2048"])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return str(path)


class Plain(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


class TinyImages:
    name, num_classes, class_names = "tiny", 0, ()

    def __init__(self, images):
        self.images = images
        self.shape = tuple(images.shape[1:])
        self.labels = torch.zeros(len(images), dtype=torch.int64)

    def __len__(self):
        return len(self.images)

    def batch(self, indices):
        return self.images[indices]

    def fingerprint(self):
        return "tiny"


def test_figures_equal_torch_fidelity_through_the_loading_path(weights_path, tmp_path):
    real, fake = torch.randint(0, 256, (2, 6, 3, 8, 8)).to(torch.uint8)
    evaluator = FeatureEvaluator(
        Inception(weights_path), 6, 6, batch_size=4, cache_dir=str(tmp_path), kid_subset_size=5
    )
    before = torch.get_rng_state()
    evaluator.prepare(TinyImages(real), "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    # FID's eigenvalues of 2048 x 2048 matrices take seconds: here the features and the cheap figures
    reference = evaluator._real_features(evaluator._data)
    generated = evaluator.extract([(fake / 127.5 - 1, torch.zeros(6, dtype=torch.int64))])
    assert reference.shape == generated.features.shape == (6, 2048)
    assert generated.logits.shape == (6, 1008)
    theirs = inceptionv3.FeatureExtractorInceptionV3(
        "plain", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights_path
    )
    features, logits = theirs(fake)
    assert (generated.features - features).norm() < 2e-6 * features.norm()
    assert (generated.logits - logits).norm() < 2e-6 * logits.norm()
    assert evaluator.comparable_with_papers
    assert len(evaluator.stamp()["weights_sha256"]) == 64


@pytest.mark.slow
def test_whole_figures_equal_torch_fidelity(weights_path, tmp_path):
    real, fake = torch.randint(0, 256, (2, 8, 3, 8, 8)).to(torch.uint8)
    evaluator = FeatureEvaluator(Inception(weights_path), 8, 8, cache_dir=str(tmp_path), kid_subset_size=6)
    evaluator.prepare(TinyImages(real), "cpu")
    ours = evaluator.evaluate([(fake / 127.5 - 1, torch.zeros(8, dtype=torch.int64))], conditional=True)
    theirs = calculate_metrics(
        input1=Plain(fake),
        input2=Plain(real),
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
    assert "class_consistency" not in ours
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours["kid_mean"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert (ours["precision"], ours["recall"]) == (theirs["precision"], theirs["recall"])


def test_grey_is_repeated_to_three_channels(weights_path):
    extractor = Inception(weights_path)
    extractor.prepare(None, "cpu", Cache())
    grey = torch.randint(0, 256, (2, 1, 8, 8)).to(torch.uint8)
    assert torch.equal(extractor.extract(grey)[0], extractor.extract(grey.repeat(1, 3, 1, 1))[0])


def test_failed_download_names_the_ways_out(monkeypatch):
    def fail(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(inceptionv3, "load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match=r"(?s)no route.*weights_path=FILE.*metrics=digits.*metrics=domain"):
        Inception().prepare(None, "cpu", Cache())


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"absent.*weights_path=FILE"):
        Inception(str(tmp_path / "absent")).prepare(None, "cpu", Cache())
    for text in ("no weights", "junk\n"):  # the unpickler stumbles over each in its own way
        (tmp_path / "text").write_text(text)
        with pytest.raises(ValueError, match="not a readable file of weights"):
            Inception(str(tmp_path / "text")).prepare(None, "cpu", Cache())
    torch.save({"other": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"(?s)cannot be had from .*other"):
        Inception(str(tmp_path / "other")).prepare(None, "cpu", Cache())
