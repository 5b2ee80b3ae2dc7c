"""Several processes give what one gives, to the last digit: real gloo processes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import ganforge as package
from ganforge.datasets.digits import digits
from ganforge.draws import Draws
from ganforge.evaluation.digits import Digits
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.metrics.class_consistency import ClassConsistency
from ganforge.evaluation.metrics.fid import FID
from ganforge.evaluation.metrics.inception_score import InceptionScore
from ganforge.evaluation.metrics.kid import KID
from ganforge.evaluation.metrics.pixel_distance import PixelDistance
from ganforge.evaluation.metrics.precision_recall import PrecisionRecall
from ganforge.evaluation.ranks import Ranks
from ganforge.games.sampling import generate, proportional_labels
from ganforge.networks.dcgan import Generator

NUMBER = 330  # no multiple of the batch: the last one is short, and ranks get unequal shares


def scored(rank: int, size: int, folder: str) -> None:
    """What one rank does; each writes what it was told."""
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(f"{folder}/store{size}", size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    torch.manual_seed(3)
    network = Generator(latent_dim=8, image_size=8, channels=1, num_classes=10, width=8).eval()

    def sample(draws: Draws, labels: torch.Tensor) -> torch.Tensor:
        return network(draws.normal(len(labels), 8), labels)

    evaluator = FeatureEvaluator(
        Digits(),
        {
            "fid": FID(),
            "kid": KID(subset_size=50),
            "inception_score": InceptionScore(),
            "precision_recall": PrecisionRecall(),
            "class_consistency": ClassConsistency(),
            "pixel_distance": PixelDistance(num_images=200),
        },
        num_samples=NUMBER,
        final_num_samples=NUMBER,
        batch_size=100,
        cache_dir=f"{folder}/cache{size}",
    )
    evaluator.prepare(digits(), "cpu")
    labels = proportional_labels([1] * 10, NUMBER)
    batches = generate(sample, labels, seed=5, batch_size=64, rank=rank, ranks=size)
    scores = evaluator.evaluate(batches, conditional=True)
    torch.save(scores, f"{folder}/scores{size}_{rank}.pt")
    if size > 1:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    threads = torch.get_num_threads()
    try:
        scored(0, 1, str(folder))
    finally:
        torch.set_num_threads(threads)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_the_figures_do_not_depend_on_the_number_of_ranks(size: int, folder: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(package.__file__).parents[1]), *sys.path]),
    }
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(size), str(folder)], env=environment)
        for rank in range(size)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0] * size
    alone: dict[str, float] = torch.load(folder / "scores1_0.pt")
    assert {"fid", "kid_mean", "inception_score", "precision", "class_consistency", "pixel_swd"} <= set(alone)
    for rank in range(size):
        assert torch.load(folder / f"scores{size}_{rank}.pt") == alone, "to the last digit"


def test_a_process_on_its_own_has_everything() -> None:
    ranks = Ranks.current()
    assert ranks == Ranks(0, 1)
    assert ranks.mine([1, 2, 3]) == [1, 2, 3]
    assert ranks.gather([1, 2, 3]) == [1, 2, 3]
    assert ranks.from_first({"fid": 1.0}) == {"fid": 1.0}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("number", [0, 1, 5, 12])
def test_every_item_is_dealt_to_one_rank(size: int, number: int) -> None:
    items = list(range(number))
    shares: list[Any] = [Ranks(rank, size).mine(items) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


if __name__ == "__main__":
    scored(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
