"""`ganforge evaluate` as typed: any two sides, one JSON, and one message for what cannot be compared."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from torch import Tensor, nn

from ganforge.commands.application import main
from ganforge.evaluation.stamp import protocol
from ganforge.evaluation.train_digits_classifier import digits_images

SECTIONS = {"protocol", "extractor", "metrics", "real", "generated", "versions"}
USUAL = {
    "fid", "fid_real_halves", "kid_mean", "kid_std", "mind", "inception_score", "inception_score_std",
    "precision", "recall", "f_score", "density", "coverage",
}  # fmt: skip
HALF = 240  # images of each of the two folders
DIGITS = "metrics=digits"
AUTO = ("metrics=auto", "+metrics.evaluators.0.extractor.steps=3")


class Drawn(nn.Module):
    """A generator to export: what kind of images it gives is its kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(4, 64)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images = torch.tanh(self.layer(z)).reshape(-1, 1, 8, 8)
        if self.kind == "labelled":
            images = images + 0.1 * labels.reshape(-1, 1, 1, 1)
            images = images.clamp(-1, 1)
        if self.kind == "nan":
            images = torch.where(images > 0.5, images * float("nan"), images)
        if self.kind == "constant":
            images = images * 0 - 0.5
        return images


def export(kind: str, path: Path) -> None:
    torch.manual_seed(1)
    jit: Any = torch.jit
    inputs = (torch.randn(2, 4), torch.zeros(2, dtype=torch.int64))
    jit.trace(Drawn(kind).eval(), inputs, check_trace=False).save(str(path))


def write_idx(path: Path, values: Tensor) -> None:
    content = b"\0\0\x08" + bytes([values.dim()]) + struct.pack(f">{values.dim()}i", *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content + values.numpy().tobytes()))


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANFORGE_CACHE", str(shared_cache))
    return shared_cache


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One half of some digits in a folder, a ZIP and NumPy files, and another half; and exported generators."""
    top = tmp_path_factory.mktemp("files")
    images, labels = digits_images()
    halves = {"ours": slice(0, HALF), "theirs": slice(HALF, 2 * HALF)}
    for name, rows in halves.items():
        for i, (image, label) in enumerate(zip(images[rows], labels[rows].tolist(), strict=True)):
            path = top / name / str(label) / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
    with zipfile.ZipFile(top / "ours.zip", "w") as archive:
        for path in sorted((top / "ours").rglob("*.png")):
            archive.write(path, path.relative_to(top / "ours"))
    ours = halves["ours"]
    order = labels[ours].argsort(stable=True)  # as the folders have them
    np.savez(top / "ours.npz", images=images[ours][order].numpy(), labels=labels[ours][order].numpy())
    np.save(top / "ours.npy", images[ours][order].permute(0, 2, 3, 1).numpy())
    np.save(top / "nan.npy", np.full((40, 8, 8, 1), np.nan, dtype=np.float32))
    for kind in ("plain", "labelled", "nan", "constant"):
        export(kind, top / f"{kind}.pt")
    for split, count in (("train", 12), ("t10k", 30)):
        pixels = torch.randint(256, (count, 28, 28), dtype=torch.uint8)
        write_idx(top / f"MNIST/raw/{split}-images-idx3-ubyte.gz", pixels)
        write_idx(top / f"MNIST/raw/{split}-labels-idx1-ubyte.gz", torch.arange(count).byte() % 10)
    return top


def type_once(*words: str) -> None:
    """`ganforge WORDS` in this process, outside any test."""
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ganforge", *words])
        patch.setattr(sys, "path", list(sys.path))
        assert main() == 0


@pytest.fixture(scope="session")
def scored(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the digits that was scored as it went: `best.ckpt` and `last.ckpt`; not to be changed."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANFORGE_CACHE", str(shared_cache))
        type_once(
            *("train", "model=dcgan", "model.generator.width=8", "model.discriminator.width=8"),
            *("metrics=digits", "metrics.num_samples=100", "metrics.final_num_samples=100"),
            *("callbacks.evaluation.every_kimg=0.032", "logger=csv", "batch_size=32", "total_kimg=0.128"),
            *("trainer=cpu", "callbacks.samples=null", f"hydra.run.dir={folder}"),
        )
    return folder


@dataclass
class Written:
    """What a command wrote and printed."""

    scores: dict[str, float]
    made_by: dict[str, Any]
    out: str
    err: str


Evaluate = Callable[..., Written]


def strictly(path: Path) -> Any:
    """JSON as the standard has it: without NaN and infinity."""

    def refuse(word: str) -> float:
        raise AssertionError(f"{path} holds {word}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def evaluate(ganforge: Any, tmp_path: Path) -> Evaluate:
    """`ganforge evaluate WORDS` that succeeds, with what must hold of any JSON checked."""

    def call(*words: str) -> Written:
        path = tmp_path / "out.json"
        path.unlink(missing_ok=True)
        outcome = ganforge("evaluate", *words, f"out={path}")
        assert outcome.code == 0, outcome.err
        assert "Traceback" not in outcome.err
        written = strictly(path)
        assert written.keys() == {"scores", "made_by"}
        assert written["made_by"].keys() == SECTIONS
        assert written["made_by"]["protocol"] == protocol(written["made_by"])
        assert written["made_by"]["protocol"] in outcome.out
        assert written["scores"]
        return Written(written["scores"], written["made_by"], outcome.out, outcome.err)

    return call


# The two sides.


@pytest.mark.parametrize("name", ["ours", "ours.zip", "ours.npz", "ours.npy"])
def test_images_of_any_kind_of_file(name: str, evaluate: Evaluate, files: Path) -> None:
    """The same pixels give the same figures; labels come with sub-folders and with a .npz file's own."""
    written = evaluate(f"generated={files / name}", f"real={files / 'theirs'}", DIGITS)
    assert written.scores.keys() >= USUAL
    assert ("class_consistency" in written.scores) == (name != "ours.npy")
    assert written.made_by["generated"]["num_samples"] == HALF
    assert written.made_by["real"]["count"] == HALF
    folder = evaluate(f"generated={files / 'ours'}", f"real={files / 'theirs'}", DIGITS)
    for figure in USUAL:
        assert written.scores[figure] == pytest.approx(folder.scores[figure], rel=1e-6, abs=1e-6), figure
    assert written.made_by["protocol"] == folder.made_by["protocol"]


def test_sub_folders_are_classes(evaluate: Evaluate, files: Path) -> None:
    written = evaluate(f"generated={files / 'ours'}", f"real={files / 'theirs'}", DIGITS)
    assert written.scores["class_consistency"] > 0.97  # a good classifier's accuracy on real digits


def test_images_of_other_classes_are_not_asked_for_theirs(
    evaluate: Evaluate, files: Path, tmp_path: Path
) -> None:
    shutil.copytree(files / "ours", tmp_path / "renamed")
    for folder in (tmp_path / "renamed").iterdir():
        folder.rename(folder.with_name(f"kind {folder.name}"))
    written = evaluate("generated=renamed", f"real={files / 'theirs'}", DIGITS)
    assert "class_consistency" not in written.scores
    assert "left out: class_consistency" in written.err


def test_data_sets_by_name(evaluate: Evaluate, files: Path) -> None:
    short = evaluate(f"generated={files / 'ours'}", "real=digits")  # which brings its own metrics
    assert short.made_by["extractor"]["name"] == "digits"
    assert short.made_by["real"]["name"] == "digits"
    assert short.made_by["real"]["count"] == 1797
    long = evaluate(f"generated={files / 'ours'}", "data@real=digits")
    assert long.scores == short.scores
    itself = evaluate("generated=digits", "real=digits")
    assert itself.scores["fid"] == pytest.approx(0, abs=1e-9)
    assert itself.scores["precision"] == itself.scores["recall"] == itself.scores["coverage"] == 1


def test_the_settings_of_a_data_set(evaluate: Evaluate, files: Path) -> None:
    root = f"real.root={files}"
    words = [f"generated={files / 'ours'}", "real=mnist", root, DIGITS, "metrics.compute=[fid]"]
    for split, count in (("test", 30), ("train", 12)):
        written = evaluate(*words, f"real.split={split}")
        assert written.made_by["real"]["name"] == "mnist"
        assert written.made_by["real"]["count"] == count
        assert written.scores.keys() == {"fid", "fid_real_halves"}


def test_a_checkpoint_against_its_own_data_and_against_any(
    evaluate: Evaluate, scored: Path, files: Path
) -> None:
    own = evaluate(f"checkpoint={scored}")
    assert own.made_by["real"]["name"] == "digits"
    assert own.made_by["generated"]["num_samples"] == 100
    assert "class_consistency" in own.scores
    for name in (scored, scored / "checkpoints", scored / "checkpoints" / "best.ckpt"):
        other = evaluate(f"generated={name}", "real=digits", "num_samples=100")
        assert other.scores == own.scores
        assert other.made_by["protocol"] == own.made_by["protocol"]
    elsewhere = evaluate(f"checkpoint={scored}", f"real={files / 'ours'}")
    assert elsewhere.made_by["real"]["name"] == "ours"
    assert elsewhere.scores["fid"] != own.scores["fid"]


def test_a_checkpoint_without_a_path_to_write_to(ganforge: Any, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    assert ganforge("evaluate", f"checkpoint={run}", DIGITS, "num_samples=20").code == 0
    assert strictly(run / "checkpoints" / "last_digits.json")["scores"]
    assert ganforge("evaluate", f"generated={run}", "real=digits", "num_samples=20").code == 0
    assert strictly(tmp_path / "last_digits.json")["scores"]


def test_the_real_side_may_be_a_generator(evaluate: Evaluate, scored: Path, files: Path) -> None:
    written = evaluate(f"generated={files / 'ours'}", f"real={scored}", "num_samples=90", DIGITS)
    assert written.made_by["real"]["count"] == 90
    assert written.made_by["generated"]["num_samples"] == HALF
    same = evaluate(f"generated={scored}", f"real={scored}", "num_samples=90", DIGITS)
    assert same.scores["fid"] == pytest.approx(0, abs=1e-9)
    assert same.scores["recall"] == 1


def test_an_exported_generator(evaluate: Evaluate, files: Path) -> None:
    words = [f"generated={files / 'plain.pt'}", f"real={files / 'theirs'}", DIGITS, "latent_dim=4"]
    written = evaluate(*words, "num_samples=60")
    assert written.made_by["generated"]["num_samples"] == 60
    assert "class_consistency" not in written.scores
    again, other = evaluate(*words, "num_samples=60"), evaluate(*words, "num_samples=60", "seed=1")
    assert again.scores == written.scores != other.scores
    assert again.made_by["protocol"] == other.made_by["protocol"]


def test_an_exported_generator_with_labels_gets_the_datas(evaluate: Evaluate, files: Path) -> None:
    words = [f"generated={files / 'labelled.pt'}", f"real={files / 'theirs'}", DIGITS, "latent_dim=4"]
    written = evaluate(*words, "num_samples=60", "num_classes=10")
    assert written.made_by["generated"]["labels"] == "the data's frequencies"
    assert 0 <= written.scores["class_consistency"] <= 1
    other = evaluate(*words, "num_samples=60", "num_classes=4")  # its classes are not the data's ten
    assert "class_consistency" not in other.scores


def test_an_onnx_generator_gives_the_figures_of_its_twin(
    evaluate: Evaluate, files: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX's runtime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    layer = torch.jit.load(str(files / "plain.pt")).layer  # type: ignore[no-untyped-call]
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["z", "weight", "bias"], ["flat"], transB=1),
            helper.make_node("Tanh", ["flat"], ["squashed"]),
            helper.make_node("Reshape", ["squashed", "shape"], ["images"]),
        ],
        "generator",
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])],
        [
            numpy_helper.from_array(layer.weight.detach().numpy(), "weight"),
            numpy_helper.from_array(layer.bias.detach().numpy(), "bias"),
            numpy_helper.from_array(np.array([-1, 1, 8, 8]), "shape"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "plain.onnx")
    words = [f"real={files / 'theirs'}", DIGITS, "num_samples=60", "metrics.compute=[fid,inception_score]"]
    exported = evaluate("generated=plain.onnx", *words)
    twin = evaluate(f"generated={files / 'plain.pt'}", "latent_dim=4", *words)
    assert exported.scores == pytest.approx(twin.scores, rel=0.02)  # a pixel may round the other way


def save_statistics(ganforge: Any, *words: str) -> None:
    outcome = ganforge("evaluate", *words)
    assert outcome.code == 0, outcome.err


def test_statistics_of_either_side_give_the_fid_of_its_images(
    evaluate: Evaluate, ganforge: Any, files: Path, tmp_path: Path
) -> None:
    ours, theirs = files / "ours", files / "theirs"
    save_statistics(ganforge, f"real={theirs}", "save_stats=theirs_stats.npz", DIGITS)
    save_statistics(
        ganforge, f"generated={ours}", "save_stats=ours_stats.npz", DIGITS
    )  # alone: the same thing
    assert {path.name for path in tmp_path.iterdir()} == {"theirs_stats.npz", "ours_stats.npz"}
    images = evaluate(f"generated={ours}", f"real={theirs}", DIGITS).scores["fid"]
    real = evaluate(f"generated={ours}", "real=theirs_stats.npz", DIGITS)
    generated = evaluate("generated=ours_stats.npz", f"real={theirs}", DIGITS)
    both = evaluate("generated=ours_stats.npz", "real=theirs_stats.npz", DIGITS)
    for written in (real, generated, both):
        assert written.scores["fid"] == pytest.approx(images, rel=1e-9)
    assert both.scores.keys() == {"fid"}
    assert real.scores.keys() == {"fid", "inception_score", "inception_score_std"}  # no real features
    assert "left out: kid, mind, precision_recall, density_coverage" in real.err
    assert real.made_by["real"]["count"] == HALF
    with np.load("theirs_stats.npz") as content:
        assert json.loads(str(content["ganforge"]))["extractor"]["name"] == "digits"


def test_statistics_of_a_checkpoints_own_data(
    evaluate: Evaluate, ganforge: Any, scored: Path, tmp_path: Path
) -> None:
    """save_stats beside an evaluation writes both."""
    first = evaluate(f"checkpoint={scored}", "save_stats=folder/own.npz")
    again = evaluate(f"checkpoint={scored}", "real=folder/own.npz")
    assert again.scores["fid"] == pytest.approx(first.scores["fid"], rel=1e-9)


# Samples and their number.


def test_several_seeds_are_the_mean_and_spread_of_single_ones(evaluate: Evaluate, scored: Path) -> None:
    words = [f"checkpoint={scored}", "num_samples=40"]
    start = random.randrange(1000)
    alone = [evaluate(*words, f"seed={start + k}").scores for k in range(3)]
    written = evaluate(*words, f"seed={start}", "seeds=3")
    assert written.made_by["generated"]["seeds"] == 3
    for figure in alone[0]:
        values = [scores[figure] for scores in alone]
        assert written.scores[figure] == pytest.approx(mean(values), rel=1e-12, abs=1e-12), figure
        assert written.scores[f"{figure}_over_seeds"] == pytest.approx(stdev(values), rel=1e-9, abs=1e-12)
    assert written.scores.keys() == {*alone[0], *(f"{figure}_over_seeds" for figure in alone[0])}
    assert "over seeds" in written.out


def test_bootstrap_adds_intervals(evaluate: Evaluate, scored: Path, files: Path) -> None:
    for words in (
        [f"checkpoint={scored}", "num_samples=80"],
        [f"generated={files / 'ours'}", f"real={files / 'theirs'}", DIGITS],
        [
            f"generated={files / 'ours'}",
            f"real={files / 'theirs'}",
            *AUTO,
            "metrics.compute=[fid,kid]",
        ],
    ):
        plain, written = evaluate(*words), evaluate(*words, "bootstrap=3")
        for figure in ("fid", "kid"):
            assert f"{figure}_low" not in plain.scores
            middle = written.scores.get(figure, written.scores.get(f"{figure}_mean"))
            assert written.scores[f"{figure}_low"] < middle < written.scores[f"{figure}_high"]
        assert {figure: written.scores[figure] for figure in plain.scores} == plain.scores
        assert written.made_by["protocol"] == plain.made_by["protocol"]


def test_ways_of_sampling_give_other_samples_and_protocols(evaluate: Evaluate, scored: Path) -> None:
    last = scored / "checkpoints" / "last.ckpt"
    words = [f"checkpoint={last}", "num_samples=50", "metrics.compute=[fid,inception_score]"]
    ways = {
        "": "usual",
        "truncation=0.5": "truncation",
        "ema=false": "weights",
        "batch_norm=standing": "batch_norm",
        "batch_norm=batch": "batch_norm",
        "num_samples=60": "num_samples",
    }
    written = {way: evaluate(*words, *filter(None, [way])) for way in ways}
    assert len({each.scores["fid"] for each in written.values()}) == len(ways)
    assert len({each.made_by["protocol"] for each in written.values()}) == len(ways)
    facts = {way: written[way].made_by["generated"] for way in ways}
    assert facts[""]["weights"] == "ema"
    assert facts["ema=false"]["weights"] == "raw"
    assert facts["truncation=0.5"]["truncation"] == 0.5
    assert facts["batch_norm=standing"]["batch_norm"] == "standing"
    assert facts["batch_norm=batch"]["batch_norm"] == "batch"
    assert facts["num_samples=60"]["num_samples"] == 60
    assert evaluate(*words).scores == written[""].scores


def test_protocols_of_two_checkpoints_of_one_run_agree(evaluate: Evaluate, scored: Path, files: Path) -> None:
    """With each other and with what the run itself wrote; not with another extractor, real side or number."""
    best, last = (
        evaluate(f"checkpoint={scored / 'checkpoints' / name}").made_by for name in ("best.ckpt", "last.ckpt")
    )
    at_the_end = strictly(scored / "scores.json")["made_by"]
    assert best["protocol"] == last["protocol"] == at_the_end["protocol"]
    assert best["generated"]["checkpoint_sha256"] != last["generated"]["checkpoint_sha256"]
    others = (
        ("num_samples=50",),
        (f"real={files / 'ours'}",),
        ("metrics=domain", "+metrics.extractor.steps=3", "num_samples=100"),
        ("metrics.compute=[fid]",),
    )
    protocols = {evaluate(f"checkpoint={scored}", *words).made_by["protocol"] for words in others}
    assert len(protocols) == len(others)
    assert best["protocol"] not in protocols


def test_a_cache_filled_for_other_metrics_changes_nothing(
    evaluate: Evaluate, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"generated={files / 'ours'}", f"real={files / 'theirs'}", DIGITS]
    monkeypatch.setenv("GANFORGE_CACHE", str(tmp_path / "first"))
    fresh = evaluate(*words).scores
    monkeypatch.setenv("GANFORGE_CACHE", str(tmp_path / "second"))
    evaluate(*words, "metrics.compute=[fid]")
    assert evaluate(*words).scores == fresh


def test_a_picture_of_neighbours(evaluate: Evaluate, scored: Path, files: Path, tmp_path: Path) -> None:
    """A row each: the generated image and the five real ones nearest to it, the closest pairs first."""
    picture = tmp_path / "out_neighbours.png"
    for words in (
        [f"checkpoint={scored}", "num_samples=20"],
        [f"generated={scored}", "real=digits", "num_samples=20"],
        [f"generated={files / 'ours'}", f"real={files / 'theirs'}", DIGITS],
        [f"generated={files / 'ours'}", f"real={files / 'theirs'}", *AUTO, "metrics.compute=[fid]"],
    ):
        evaluate(*words, "neighbours=4")
        with Image.open(picture) as image:
            assert_grid(image, rows=4, columns=6)
        picture.unlink()
    evaluate("generated=digits", "real=digits", "neighbours=3")
    with Image.open(picture) as image:
        size = image.width // 6
        pixels = np.asarray(image.convert("L"))
    assert np.array_equal(
        pixels[:size, :size], pixels[:size, size : 2 * size]
    )  # a copy's nearest is the original


def assert_grid(image: Image.Image, rows: int, columns: int) -> None:
    """That the picture has rows and columns of equal squares of a whole number of 8x8 pixels, and borders."""
    assert abs(image.width / columns - image.height / rows) <= 2
    assert image.width / columns >= 8


# What may go wrong with samples.


def test_a_generator_of_one_image(evaluate: Evaluate, files: Path) -> None:
    for number in (5, 40, 200):
        written = evaluate(
            *(f"generated={files / 'constant.pt'}", f"real={files / 'theirs'}", DIGITS, "latent_dim=4"),
            f"num_samples={number}",
        )
        assert written.scores["recall"] == written.scores["coverage"] == 0
        assert written.scores["inception_score"] == pytest.approx(1)
        assert written.scores["fid"] > 50


def test_every_metric_bears_a_constant_generator(evaluate: Evaluate, files: Path) -> None:
    """None gives NaN, and none fails; those that need what is not at hand are left out."""
    weights = {"path_length", "lpips_diversity"}  # which need weights of networks
    conf = Path(__file__).parents[2] / "conf" / "metrics" / "compute"
    names = sorted(
        {path.stem for path in conf.glob("*.yaml")} - weights - {"standard", "classification_accuracy"}
    )
    words = [f"real={files / 'theirs'}", DIGITS, "latent_dim=4", "num_samples=30"]
    words.append(f"metrics.compute=[{','.join(names)}]")
    for side in ([f"generated={files / 'constant.pt'}"], [f"generated={files / 'plain.pt'}"]):
        evaluate(*side, *words)
    evaluate(*words[:2], "latent_dim=4", "num_samples=30", words[-1], f"generated={files / 'constant.pt'}",
             f"held_out={files / 'ours'}")  # fmt: skip


def test_images_that_are_not_numbers(ganforge: Any, files: Path) -> None:
    words = [f"real={files / 'theirs'}", DIGITS, "latent_dim=4", "num_samples=30", "out=out.json"]
    outcome = ganforge("evaluate", f"generated={files / 'nan.pt'}", *words)
    outcome.refuses("of 30 generated images hold NaN or infinity")
    ganforge("evaluate", f"generated={files / 'nan.npy'}", *words[:2], *words[4:]).refuses(
        "nan.npy", "float32"
    )
    real = [f"generated={files / 'ours'}", f"real={files / 'nan.pt'}", *words[1:]]
    ganforge("evaluate", *real).refuses("of 30 samples of nan.pt hold NaN or infinity")
    assert not Path("out.json").exists()


def test_points_that_are_not_numbers(ganforge: Any, tmp_path: Path) -> None:
    """A network of NaN weights has no figures, and no file says that it had."""
    words = ("train", "data=gaussian_grid", "metrics=none", "logger=csv", "total_kimg=0.032", "batch_size=32")
    assert ganforge(*words, "trainer=cpu", "callbacks.samples=null", "hydra.run.dir=run").code == 0
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    for name, value in state["state_dict"].items():
        if value.is_floating_point() and name.startswith("ema.average."):
            value.fill_(float("nan"))
    torch.save(state, path)
    outcome = ganforge("evaluate", f"checkpoint={path}", "metrics=mixture", "out=out.json")
    outcome.refuses("not a finite number")
    assert not (tmp_path / "out.json").exists()


def test_fewer_samples_than_dimensions_are_warned_of_with_a_measure(evaluate: Evaluate, files: Path) -> None:
    words = [f"generated={files / 'plain.pt'}", f"real={files / 'theirs'}", DIGITS, "latent_dim=4"]
    written = evaluate(*words, "num_samples=30")
    (warning,) = [line for line in written.err.splitlines() if line.startswith("warning: metrics")]
    assert "FID of 64 features from 30 images is biased upwards" in warning
    measured = float(warning.split("real images score ")[1].split()[0])
    assert measured > 0
    assert "warning: metrics" not in evaluate(*words, "num_samples=100").err


# Broken files.


def test_caches_that_were_cut_off_or_damaged(
    evaluate: Evaluate, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setenv("GANFORGE_CACHE", str(folder))
    words = [f"generated={files / 'ours'}", f"real={files / 'theirs'}", DIGITS]
    first = evaluate(*words).scores
    cached = sorted(folder.glob("features-*.safetensors"))
    assert len(cached) == 2
    whole = cached[0].read_bytes()
    for content in (b"", whole[: len(whole) // 2], random.randbytes(len(whole)), flipped(whole)):
        cached[0].write_bytes(content)
        (folder / f".{cached[1].stem}-half").write_bytes(whole[:100])  # what a killed process leaves
        written = evaluate(*words)
        assert written.scores == first
        assert "made anew" in written.err
        assert cached[0].read_bytes() == whole
    cached[0].unlink()
    folder.chmod(0o500)
    try:
        assert evaluate(*words).scores == first
    finally:
        folder.chmod(0o700)


def flipped(content: bytes) -> bytes:
    """The content with one bit of its last tenth the other way."""
    changed = bytearray(content)
    changed[random.randrange(len(content) * 9 // 10, len(content))] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("side", ["generated", "real"])
def test_statistics_that_do_not_fit(side: str, ganforge: Any, files: Path, tmp_path: Path) -> None:
    other = "real" if side == "generated" else "generated"
    words = [f"{other}={files / 'theirs'}", DIGITS, "out=out.json"]

    def refuses(name: str, *parts: str) -> None:
        ganforge("evaluate", f"{side}={name}", *words).refuses(*parts)
        assert not (tmp_path / "out.json").exists()

    wide = np.eye(5)
    np.savez("wide.npz", mu=wide[0], sigma=wide)
    refuses("wide.npz", "5", "64", "was not made with metrics=digits")
    np.savez("nan.npz", mu=np.full(64, np.nan), sigma=np.eye(64))
    refuses("nan.npz", "nan.npz", "mu holds NaN")
    np.savez("square.npz", mu=np.zeros(64), sigma=np.eye(63))
    refuses("square.npz", "square.npz", "sigma has the shape (63, 63)")
    save_statistics(ganforge, f"real={files / 'ours'}", "save_stats=stats.npz", DIGITS)
    with np.load("stats.npz") as content:
        arrays = dict(content)
    stamp = json.loads(str(arrays["ganforge"]))
    stamp["extractor"]["weights_sha256"] = "0" * 64
    np.savez("foreign.npz", **{**arrays, "ganforge": np.array(json.dumps(stamp))})
    refuses("foreign.npz", "foreign.npz", "weights 000000000000")
    whole = Path("stats.npz").read_bytes()
    Path("cut.npz").write_bytes(whole[: len(whole) // 2])
    refuses("cut.npz", "cut.npz")


@pytest.mark.parametrize("side", ["generated", "real"])
def test_images_that_do_not_fit(side: str, ganforge: Any, files: Path, tmp_path: Path) -> None:
    other = "real" if side == "generated" else "generated"
    words = [f"{other}={files / 'theirs'}", DIGITS]

    def refuses(name: str, *parts: str) -> None:
        ganforge("evaluate", f"{side}={name}", *words).refuses(*parts)

    (tmp_path / "empty").mkdir()
    refuses("empty", f"{side}=empty", "no files")
    mixed = Path(shutil.copytree(files / "ours" / "0", tmp_path / "mixed"))
    Image.new("L", (9, 9)).save(mixed / "zzz.png")
    refuses("mixed", "zzz.png", "9x9", "8x8", "image_size")
    assert ganforge("evaluate", f"{side}=mixed", *words, "image_size=8").code == 0
    cut = Path(shutil.copytree(files / "ours" / "0", tmp_path / "cut"))
    victim = next(iter(sorted(cut.iterdir())))
    victim.write_bytes(victim.read_bytes()[:60])
    refuses("cut", victim.name)
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((files / "ours" / "0").iterdir())[:3]:
        shutil.copy(path, few)
    refuses("few", "few has 3 images", "at least 4")
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    refuses("objects.npy", "objects.npy", "Python objects")
    np.save("points.npy", np.zeros((10, 2), dtype=np.float32))
    refuses("points.npy", "points", "(2,)")
    Path("text.txt").write_text("hello")
    refuses("text.txt", f"{side}=text.txt", "no kind of file")
    refuses("nowhere", f"{side}=nowhere does not exist")
    refuses("digts", f"{side}=digts does not exist", "did you mean 'digits'?")


def test_checkpoints_that_do_not_fit(ganforge: Any, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    state = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    name = next(n for n, value in state["state_dict"].items() if n.startswith("ema.") and value.dim() == 4)
    state["state_dict"][name] = state["state_dict"][name][..., :1]
    torch.save(state, path)
    for key in ("checkpoint", "generated"):
        ganforge("evaluate", f"{key}={path}", "real=digits").refuses(
            f"{key}={path}", "does not fit its own model"
        )
    path.write_bytes(path.read_bytes()[:1000])
    for key in ("checkpoint", "generated"):
        ganforge("evaluate", f"{key}={path}", "real=digits").refuses(f"{key}={path}", "not a whole ganforge")
    ganforge("evaluate", "generated=digits", f"real={path}").refuses(f"real={path}", "not a whole ganforge")


def test_exported_generators_that_do_not_fit(ganforge: Any, files: Path, tmp_path: Path) -> None:
    words = [f"real={files / 'theirs'}", DIGITS, "num_samples=20"]
    plain = f"generated={files / 'plain.pt'}"
    ganforge("evaluate", plain, *words).refuses("plain.pt", "latent_dim=...")
    ganforge("evaluate", plain, *words, "latent_dim=5").refuses("plain.pt", "latent_dim=5")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "weights.pt")
    ganforge("evaluate", "generated=weights.pt", *words).refuses("weights.pt", "TorchScript")


# Mistakes in what is typed.


def test_mistakes(ganforge: Any, scored: Path, files: Path, tmp_path: Path) -> None:
    run, ours = f"checkpoint={scored}", f"generated={files / 'ours'}"
    theirs = f"real={files / 'theirs'}"

    def refuses(words: list[str], *parts: str) -> None:
        ganforge("evaluate", *words).refuses(*parts)

    refuses([], "checkpoint=RUN or generated=SOURCE is needed", "--help")
    refuses([run, ours], "checkpoint=...", "generated=...", "same side")
    refuses([ours], "real=SOURCE is needed")
    refuses([theirs], "generated=SOURCE is needed")
    refuses([ours, "real="], "real=")
    refuses(["checkpoint=nowhere"], "checkpoint=nowhere does not exist")
    refuses([run, "metrics.compute=[fdi]"], "metrics.compute=fdi", "did you mean 'fid'?")
    refuses([run, "metrics.compute=fdi"], "metrics.compute=fdi", "did you mean 'fid'?")
    refuses([run, DIGITS, "metrics.compute=[fdi]"], "fdi", "did you mean 'fid'?")
    refuses([run, "metrics=digit"], "metrics=digit", "did you mean 'digits'?")
    refuses([run, "metrics.extractor=digit"], "metrics=digit", "did you mean 'digits'?")
    refuses([run, "metrics=none"], "metrics=none", "metrics=digits")
    refuses([run, "metrics=mixture"], "metrics=mixture", "digits")
    refuses([ours, theirs, "metrics=mixture"], "metrics=mixture", "theirs")
    refuses([ours, "real=gaussian_grid"], "metrics=mixture", "(240, 1, 8, 8)")
    refuses(["generated=gaussian_grid", theirs, DIGITS], "gaussian_grid", "(2,)")
    refuses([ours, theirs, DIGITS, "seeds=3"], "seeds=3", "bootstrap=")
    refuses([ours, theirs, DIGITS, "num_samples=50"], "num_samples=50", "generators")
    refuses([ours, theirs, DIGITS, "truncation=0.5"], "truncation=0.5", "generators")
    refuses([run, "processes=0"], "processes=0", "at least 1")
    refuses([run, "truncation=-1"], "truncation=-1", "greater than 0")
    refuses([run, "truncation=nan"], "truncation=nan", "greater than 0")
    for key, wrong in (
        ("num_samples", 3),
        ("batch_size", 0),
        ("seeds", 0),
        ("bootstrap", -1),
        ("neighbours", -1),
    ):
        refuses([run, f"{key}={wrong}"], f"{key}={wrong}", "at least")
    refuses([run, "bootstrap=1"], "bootstrap=1", "at least 2")
    refuses([run, "bootstrap=5", "metrics.compute=[mind]"], "bootstrap=5", "no use")
    refuses([run, "num_samples=many"], "num_samples=many", "whole number")
    refuses([run, "batch_norm=live"], "batch_norm=live", "running, standing, batch")
    refuses([run, "batch_norm=fast", "ema=perhaps"], "ema=perhaps", "true or false")
    refuses([run, "device=quantum"], "device=quantum", "cuda")
    refuses([run, f"out={tmp_path}"], str(tmp_path), "folder")
    refuses([theirs, "save_stats=stats", DIGITS], "save_stats=stats", ".npz")
    refuses([run, "trancation=1"], "'trancation'", "did you mean 'truncation'?")
    assert not list(tmp_path.iterdir())


def test_mistakes_with_statistics(ganforge: Any, scored: Path, files: Path) -> None:
    save_statistics(ganforge, f"real={files / 'ours'}", "save_stats=stats.npz", DIGITS)
    ganforge("evaluate", f"checkpoint={scored}", "held_out=stats.npz").refuses(
        "held_out=stats.npz", "real images"
    )
    words = ["generated=stats.npz", f"real={files / 'theirs'}", DIGITS]
    outcome = ganforge("evaluate", *words, "metrics.compute=[precision_recall]")
    assert outcome.code == 2
    assert "none of the metrics can be computed: precision_recall, because the generated side" in outcome.err
    ganforge("evaluate", *words, "neighbours=2").refuses("neighbours=2", "no images")
    words = ["generated=gaussian_grid", "real=gaussian_grid"]
    ganforge("evaluate", *words, "save_stats=points.npz").refuses("save_stats=points.npz", "metrics=mixture")
    ganforge("evaluate", *words, "neighbours=2").refuses("neighbours=2", "metrics=mixture")


def test_a_name_that_is_a_data_set_and_a_folder(ganforge: Any, files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "ours", tmp_path / "digits")
    words = [f"real={files / 'theirs'}", DIGITS, "metrics.compute=[fid]", "out=out.json"]
    ganforge("evaluate", "generated=digits", *words).refuses("generated=./digits", "data@generated=digits")
    counts = {}
    for word in ("generated=./digits", "data@generated=digits"):
        assert ganforge("evaluate", word, *words).code == 0
        counts[word] = strictly(tmp_path / "out.json")["made_by"]["generated"]["num_samples"]
    assert list(counts.values()) == [HALF, 1797]


def test_processes_do_not_share_a_multirun(ganforge: Any, scored: Path) -> None:
    outcome = ganforge("evaluate", "-m", f"checkpoint={scored}", "seed=0,1", "processes=2", "num_samples=20")
    assert outcome.code == 2
    assert "processes=2 cannot share a multirun" in outcome.err


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
