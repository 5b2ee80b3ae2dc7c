"""Evaluation against torch-fidelity's and torchmetrics' own calls: the same images, extractor, metrics and thread.

    python bench/evaluation.py [--extractor digits|inception] [--images 5000] [--rounds 3]

Prints seconds and ratios: the first evaluation, with nothing in the cache; later ones, as in a training run, for which
the real side is known; and the work shared by two processes. torch-fidelity is called as its users call it, and once
more with a name under which it caches features; torchmetrics keeps its state of the real side. Inception has random
weights of the right shapes here: speed does not depend on their values. FID, KID, Inception Score, precision and
recall; torchmetrics has no precision and recall, and does without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each process: the comparison is one thread against one

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset

from ganforge.datasets.samples import TensorSamples
from ganforge.evaluation.digits import TORCH_FIDELITY_NAME, Digits
from ganforge.evaluation.extractor import Extractor
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.inception import Inception
from ganforge.evaluation.metrics.fid import FID
from ganforge.evaluation.metrics.inception_score import InceptionScore
from ganforge.evaluation.metrics.kid import KID
from ganforge.evaluation.metrics.precision_recall import PrecisionRecall
from ganforge.evaluation.ranks import Ranks
from ganforge.images import to_float

BATCH = 64


def images(number: int, size: int, channels: int, seed: int) -> Tensor:
    """Random pictures, uint8: what is on them does not matter to the speed."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, channels, 4, 4, generator=random)
    return (nn.functional.interpolate(coarse, size, mode="bilinear") * 255).to(torch.uint8)


class Case:
    """One extractor with its images."""

    def __init__(self, extractor: str, number: int, weights: Path | None) -> None:
        self.name = extractor
        size, channels = (8, 1) if extractor == "digits" else (32, 3)
        self.real, self.fake = (images(number, size, channels, seed) for seed in (0, 1))
        self.weights = weights
        self.kid_size = min(1000, number)

    def extractor(self) -> Extractor:
        return Digits() if self.name == "digits" else Inception(str(self.weights))

    def evaluator(self, cache: str) -> FeatureEvaluator:
        metrics = {
            "fid": FID(),
            "kid": KID(subset_size=self.kid_size),
            "inception_score": InceptionScore(),
            "precision_recall": PrecisionRecall(),
        }
        number = len(self.real)
        return FeatureEvaluator(self.extractor(), metrics, number, number, batch_size=BATCH, cache_dir=cache)

    def data(self) -> TensorSamples:
        return TensorSamples("bench", self.real)

    def batches(self, ranks: Ranks) -> Iterator[tuple[Tensor, Tensor]]:
        for index, part in enumerate(torch.split(self.fake, BATCH)):
            if index % ranks.size == ranks.rank:
                yield to_float(part), torch.zeros(len(part), dtype=torch.int64)


class Pictures(Dataset[Tensor]):
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, index: int) -> Tensor:
        return self.tensor[index]


def torch_fidelity(case: Case, cache: str | None) -> dict[str, float]:
    from torch_fidelity import calculate_metrics

    expand = (-1, 3, -1, -1) if case.name == "inception" else (-1, -1, -1, -1)
    names = {
        "feature_extractor": TORCH_FIDELITY_NAME if case.name == "digits" else "inception-v3-compat",
        "feature_extractor_weights_path": None if case.weights is None else str(case.weights),
    }
    kept = {} if cache is None else {"input2_cache_name": "bench", "cache_root": cache}
    result: dict[str, float] = calculate_metrics(
        input1=Pictures(case.fake.expand(*expand)),
        input2=Pictures(case.real.expand(*expand)),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        kid_subset_size=case.kid_size,
        batch_size=BATCH,
        cuda=False,
        cache=cache is not None,
        verbose=False,
        **names,
        **kept,
    )
    return result


class Features(nn.Module):
    """An extractor's features, or logits, as torchmetrics wants them."""

    def __init__(self, extractor: Extractor, logits: bool, width: int) -> None:
        super().__init__()
        self.extractor, self.logits, self.num_features = extractor, logits, width

    def forward(self, batch: Tensor) -> Tensor:
        features, logits = self.extractor.extract(batch)
        assert logits is not None
        return logits if self.logits else features


class TorchMetrics:
    """FID, KID and Inception Score, with the real side's state kept between evaluations."""

    def __init__(self, case: Case) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.inception import InceptionScore as Score
        from torchmetrics.image.kid import KernelInceptionDistance

        self.case = case
        extractor = case.extractor()
        extractor.prepare(None, "cpu", None)  # type: ignore[arg-type]
        width = 64 if case.name == "digits" else 2048
        features, logits = Features(extractor, False, width), Features(extractor, True, width)
        self.fid = FrechetInceptionDistance(feature=features, reset_real_features=False)
        self.kid = KernelInceptionDistance(
            feature=features, subset_size=case.kid_size, reset_real_features=False
        )
        self.score = Score(feature=logits)
        self.known = False

    def __call__(self) -> None:
        with torch.no_grad():
            for metric in (self.fid, self.kid):
                if not self.known:
                    self._feed(metric, self.case.real, real=True)
                self._feed(metric, self.case.fake, real=False)
            self._feed(self.score, self.case.fake)
            for metric in (self.fid, self.kid, self.score):
                metric.compute()
                metric.reset()
        self.known = True

    def _feed(self, metric: Any, pictures: Tensor, **side: bool) -> None:
        for part in torch.split(pictures, BATCH):
            metric.update(part, **side)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def turn(case: Case, folder: str) -> Iterator[tuple[str, str, float]]:
    """Every rival's first and later evaluation once: who, which, seconds."""
    for when in ("first", "later"):  # it knows of no second time
        yield "torch-fidelity", when, seconds(lambda: torch_fidelity(case, None))
    kept = f"{folder}/fidelity"
    yield "torch-fidelity, real side cached", "first", seconds(lambda: torch_fidelity(case, kept))
    yield "torch-fidelity, real side cached", "later", seconds(lambda: torch_fidelity(case, kept))
    start = time.perf_counter()
    theirs = TorchMetrics(case)
    theirs()
    yield "torchmetrics", "first", time.perf_counter() - start
    yield "torchmetrics", "later", seconds(theirs)
    evaluator = case.evaluator(f"{folder}/ganforge")

    def evaluate() -> None:
        evaluator.evaluate(case.batches(Ranks()), conditional=False)

    start = time.perf_counter()
    evaluator.prepare(case.data(), "cpu")
    evaluate()
    yield "ganforge", "first", time.perf_counter() - start
    for _ in range(2):
        yield "ganforge", "later", seconds(evaluate)


def compare(case: Case, rounds: int, folder: str) -> Table:
    """First and later evaluations, the rivals taking turns."""
    spent: dict[tuple[str, str], list[float]] = {}
    for index in range(rounds):
        for who, when, value in turn(case, f"{folder}/{index}"):
            spent.setdefault((who, when), []).append(value)
    table = Table(
        title=f"{case.name}: {len(case.real):,} real and as many generated images, seconds (median)"
    )
    for column in ("", "first", "later", "first / ganforge's", "later / ganforge's later"):
        table.add_column(column, justify="left" if not column else "right")
    median = {key: statistics.median(values) for key, values in spent.items()}
    for who in dict.fromkeys(who for who, _ in spent):
        a, b = median[who, "first"], median[who, "later"]
        ours = median["ganforge", "first"], median["ganforge", "later"]
        table.add_row(who, f"{a:.2f}", f"{b:.2f}", f"{a / ours[0]:.2f}", f"{b / ours[1]:.2f}")
    return table


def worker(rank: int, size: int, extractor: str, number: int, weights: str, rounds: int, folder: str) -> None:
    """One of several processes that evaluate together; the first says how long it took."""
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(f"{folder}/store{size}", size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    case = Case(extractor, number, Path(weights) if weights else None)
    evaluator = case.evaluator(f"{folder}/shared")
    evaluator.prepare(case.data(), "cpu")
    ranks = Ranks.current()
    evaluator.evaluate(case.batches(ranks), conditional=False)
    spent = [
        seconds(lambda: evaluator.evaluate(case.batches(ranks), conditional=False)) for _ in range(rounds)
    ]
    if rank == 0:
        print(statistics.median(spent))
    if size > 1:
        dist.destroy_process_group()


def together(size: int, case: Case, rounds: int, folder: str) -> float:
    """Seconds of a later evaluation by `size` processes of one thread each."""
    words = [str(size), case.name, str(len(case.real)), str(case.weights or ""), str(rounds), folder]
    started = [
        subprocess.Popen([sys.executable, __file__, "--worker", str(rank), *words], stdout=subprocess.PIPE)
        for rank in range(size)
    ]
    outputs = [process.communicate()[0] for process in started]
    return float(outputs[0])


def random_inception(folder: str) -> Path:
    """A file of weights of the right shapes."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    load = FeatureExtractorInceptionV3.load_state_dict
    import torch_fidelity.feature_extractor_inceptionv3 as module

    path = Path(folder) / "inception.pth"
    fetch, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *_, **__: {}
    FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None
    try:
        torch.save(FeatureExtractorInceptionV3("random", ["2048"]).state_dict(), path)
    finally:
        FeatureExtractorInceptionV3.load_state_dict = load
        module.load_state_dict_from_url = fetch
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--extractor", choices=("digits", "inception"), action="append")
    parser.add_argument("--images", type=int, help="of each side (digits: 5000, inception: 256)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    for name in arguments.extractor or ("digits", "inception"):
        with tempfile.TemporaryDirectory() as folder:
            weights = random_inception(folder) if name == "inception" else None
            case = Case(name, arguments.images or (5000 if name == "digits" else 256), weights)
            console.print(compare(case, arguments.rounds, folder))
            alone, shared = (together(size, case, arguments.rounds, folder) for size in (1, 2))
            console.print(
                f"{name}: two processes {alone / shared:.2f} times one ({alone:.2f} s, {shared:.2f} s)\n"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        rank, size, extractor, number, weights, rounds, folder = sys.argv[2:]
        worker(int(rank), int(size), extractor, int(number), weights, int(rounds), folder)
    else:
        main()
