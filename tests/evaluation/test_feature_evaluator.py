"""The figures are torch-fidelity's, survive without the data, and leave the rest of the run alone."""

from __future__ import annotations

import io
import logging
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics

FIDELITY_NAMES = {
    "fid": "frechet_inception_distance",
    "kid_mean": "kernel_inception_distance_mean",
    "kid_std": "kernel_inception_distance_std",
    "inception_score": "inception_score_mean",
    "inception_score_std": "inception_score_std",
    "precision": "precision",
    "recall": "recall",
    "f_score": "f_score",
}


class Plain(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def noisy(data, amount=40):
    """The same data with uniform noise on its pixels."""
    noise = torch.randint(-amount, amount + 1, data.images.shape)
    return type(data)((data.images + noise).clamp(0, 255).to(torch.uint8), data.labels)


def prepared(make_evaluator, data, **arguments):
    evaluator = make_evaluator(**arguments)
    evaluator.prepare(data, "cpu")
    return evaluator


def test_figures_equal_torch_fidelity(make_evaluator, halves):
    real, fake = halves[0], noisy(halves[1])
    ours = prepared(make_evaluator, real, kid_subset_size=300).evaluate(fake.generated(), conditional=False)
    theirs = calculate_metrics(
        input1=Plain(fake.images),
        input2=Plain(real.images),
        feature_extractor="ganforge-digits",
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        kid_subset_size=300,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    assert ours["fid"] > 1
    assert ours["kid_mean"] > 0.01
    for name, theirs_name in FIDELITY_NAMES.items():
        # A deviation is made of differences: what is rounded is the float32 estimates that it is the deviation of.
        rounded = ours["kid_mean"] if name == "kid_std" else 0
        assert ours[name] == pytest.approx(theirs[theirs_name], rel=1e-6, abs=1e-6 * rounded), name


def test_identical_sets_are_at_zero_and_noise_is_far(make_evaluator, digits):
    evaluator = prepared(make_evaluator, digits)
    same = evaluator.evaluate(digits.generated(), conditional=True)
    assert same["fid"] == pytest.approx(0, abs=1e-3)
    assert same["precision"] == same["recall"] == 1
    assert same["class_consistency"] > 0.98
    assert 0 < same["fid_real_halves"] < 3
    static = type(digits)(torch.randint(0, 256, digits.images.shape).to(torch.uint8), digits.labels)
    far = evaluator.evaluate(static.generated(), conditional=True)
    assert far["fid"] > 10 * far["fid_real_halves"]
    assert far["precision"] < 0.5
    assert far["class_consistency"] < 0.5


def test_collapse_to_one_class_lowers_recall_not_precision(make_evaluator, halves):
    evaluator = prepared(make_evaluator, halves[0])
    diverse = evaluator.evaluate(halves[1].generated(), conditional=False)
    only = halves[1].labels == 3
    collapsed = type(halves[1])(halves[1].images[only], halves[1].labels[only])
    figures = evaluator.evaluate(collapsed.generated(), conditional=False)
    assert diverse["recall"] > 0.6
    assert figures["recall"] < 0.25
    assert figures["precision"] > 0.6
    assert figures["inception_score"] < 0.5 * diverse["inception_score"]
    assert figures["fid"] > 5 * diverse["fid"]


def test_class_consistency_counts_labels_met(make_evaluator, digits):
    evaluator = prepared(make_evaluator, digits)
    wrong = type(digits)(digits.images, (digits.labels + 1) % 10)
    assert evaluator.evaluate(wrong.generated(), conditional=True)["class_consistency"] < 0.02
    assert "class_consistency" not in evaluator.evaluate(digits.generated(), conditional=False)
    other = type(digits)(digits.images, digits.labels)
    other.class_names = ["cat"] * 10
    assert "class_consistency" not in prepared(make_evaluator, other).evaluate(
        digits.generated(), conditional=True
    )


def test_state_gives_the_same_figures_without_data(make_evaluator, halves):
    evaluator = prepared(make_evaluator, halves[0])
    assert make_evaluator().state() == {}
    expected = evaluator.evaluate(halves[1].generated(), conditional=True)
    file = io.BytesIO()
    torch.save(evaluator.state(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    restored = make_evaluator()
    restored.load_state(state)
    restored.prepare(None, "cpu")
    assert restored.evaluate(halves[1].generated(), conditional=True) == expected
    assert restored.stamp() == evaluator.stamp()


def test_large_reference_keeps_statistics_and_a_subset(make_evaluator, halves, monkeypatch):
    evaluator = prepared(make_evaluator, halves[0])
    expected = evaluator.evaluate(halves[1].generated(), conditional=True)
    monkeypatch.setattr("ganforge.evaluation.feature_evaluator.STATE_BYTES", 500 * 64 * 4)
    state = evaluator.state()
    assert len(state["real"]["features"]) == 500
    restored = make_evaluator()
    restored.load_state(state)
    restored.prepare(None, "cpu")
    figures = restored.evaluate(halves[1].generated(), conditional=True)
    assert figures["fid"] == expected["fid"]
    assert figures["fid_real_halves"] == expected["fid_real_halves"]
    assert figures["precision"] == pytest.approx(expected["precision"], abs=0.15)
    assert restored.stamp()["real"]["features"] == 500
    assert restored.stamp()["real"]["count"] == 898
    restored.prepare(halves[0], "cpu")  # with the data back, the whole reference is
    assert restored.evaluate(halves[1].generated(), conditional=True) == expected


def test_other_data_replace_a_loaded_reference(make_evaluator, halves):
    first = prepared(make_evaluator, halves[0])
    first.evaluate(halves[1].generated(), conditional=False)
    second = make_evaluator()
    second.load_state(first.state())
    second.prepare(halves[1], "cpu")
    assert second.evaluate(halves[1].generated(), conditional=False)["fid"] == pytest.approx(0, abs=1e-3)
    assert second.stamp()["real"]["fingerprint"] == halves[1].fingerprint()


def test_reference_of_other_weights_or_metrics_is_refused(make_evaluator, halves):
    evaluator = prepared(make_evaluator, halves[0])
    evaluator.evaluate(halves[1].generated(), conditional=False)
    state = evaluator.state()
    with pytest.raises(ValueError, match="metrics=inception"):
        make_evaluator().load_state(state | {"name": "inception"})
    other = make_evaluator()
    other.load_state(state | {"source": state["source"] | {"weights_sha256": "0" * 64}})
    with pytest.raises(ValueError, match="other weights"):
        other.prepare(None, "cpu")


def test_real_features_are_read_once_and_a_damaged_cache_is_made_anew(
    make_evaluator, halves, tmp_path, caplog
):
    real, fake = halves
    expected = prepared(make_evaluator, real).evaluate(fake.generated(), conditional=False)
    (file,) = (tmp_path / "c").iterdir()
    reads = real.reads
    assert prepared(make_evaluator, real).evaluate(fake.generated(), conditional=False) == expected
    assert real.reads == reads

    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    for damaged in (b"", whole[: len(whole) // 2], bytes(flipped)):
        file.write_bytes(damaged)
        reads = real.reads
        assert prepared(make_evaluator, real).evaluate(fake.generated(), conditional=False) == expected
        assert real.reads == reads + len(real)
        assert file.read_bytes() == whole
    assert "made anew" in caplog.text
    assert list((tmp_path / "c").iterdir()) == [file]


def test_cache_that_cannot_be_written_is_no_error(make_evaluator, halves, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    evaluator = prepared(make_evaluator, halves[0], cache_dir=str(tmp_path / "file" / "c"))
    assert evaluator.evaluate(halves[1].generated(), conditional=False)["fid"] > 0
    assert "cannot be written" in caplog.text


def test_max_real_takes_the_same_subset_each_time(make_evaluator, digits, tmp_path):
    figures = [
        prepared(make_evaluator, digits, max_real=400, cache_dir=str(tmp_path / folder)).evaluate(
            digits.generated(), conditional=False
        )
        for folder in "ab"
    ]
    assert figures[0] == figures[1]
    assert figures[0]["fid"] > 0.01


def test_global_random_numbers_are_untouched(make_evaluator, halves):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    modes = torch.is_grad_enabled(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    prepared(make_evaluator, halves[0]).evaluate(halves[1].generated(), conditional=True)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    assert (
        torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
    ) == modes


def test_precision_of_the_training_does_not_reach_the_figures(make_evaluator, halves, tmp_path):
    expected = prepared(make_evaluator, halves[0]).evaluate(halves[1].generated(), conditional=False)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            evaluator = prepared(make_evaluator, halves[0], cache_dir=str(tmp_path / "other"))
            figures = evaluator.evaluate(halves[1].generated(), conditional=False)
    finally:
        torch.set_float32_matmul_precision(before)
    assert figures == expected


def test_the_size_of_batches_does_not_matter(make_evaluator, halves):
    evaluator = prepared(make_evaluator, halves[0])
    expected = evaluator.evaluate(halves[1].generated(), conditional=True)
    assert evaluator.evaluate(halves[1].generated(37), conditional=True) == pytest.approx(expected, rel=1e-4)


def test_few_samples_warn_once(make_evaluator, halves, caplog):
    evaluator = prepared(make_evaluator, halves[0])
    few = type(halves[1])(halves[1].images[:40], halves[1].labels[:40])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert all(map(math.isfinite, evaluator.evaluate(few.generated(), conditional=True).values()))
    assert caplog.text.count("biased") == 1


def test_mistakes_are_named(make_evaluator, digits):
    with pytest.raises(ValueError, match="num_samples is 3"):
        make_evaluator(num_samples=3)
    vectors = type(digits)(digits.images, digits.labels)
    vectors.shape = (2,)
    with pytest.raises(ValueError, match="metrics=mixture"):
        make_evaluator().prepare(vectors, "cpu")
    evaluator = prepared(make_evaluator, digits)
    with pytest.raises(ValueError, match="not 2"):
        evaluator.evaluate([(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))], conditional=False)
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        evaluator.evaluate([(torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64))], conditional=False)
    nothing = make_evaluator()
    nothing.prepare(None, "cpu")
    with pytest.raises(ValueError, match="no real images"):
        nothing.evaluate(digits.generated(), conditional=False)


def test_default_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    from ganforge.cache_folder import default_cache_dir

    monkeypatch.setenv("GANFORGE_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("GANFORGE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache_dir() == Path.home() / ".cache" / "ganforge"
