"""Heads against their papers' equations, one sample and one pair at a time in float64, and who learns from what."""

from __future__ import annotations

import inspect
import math
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganforge.networks.heads.concatenation import Concatenation
from ganforge.networks.heads.contrastive import Contrastive, contrastive_loss
from ganforge.networks.heads.data_to_data import DataToData, data_to_data_cross_entropy
from ganforge.networks.heads.discriminative_classifier import DiscriminativeClassifier
from ganforge.networks.heads.head import Head, Layer, plain
from ganforge.networks.heads.multi_hinge import MultiHinge, multi_hinge_loss
from ganforge.networks.heads.twin_auxiliary_classifier import TwinAuxiliaryClassifier
from ganforge.networks.layers.minibatch_discrimination import MinibatchDiscrimination

CONF = Path(__file__).parents[2] / "conf" / "head"
FILES = sorted(CONF.glob("*.yaml"))
FEATURES, CLASSES, BATCH = 6, 3, 12
every_head = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Fresh inputs every time; where a test fails, what made them is printed."""
    torch.manual_seed(fresh := random.randrange(2**31))
    print(f"seed {fresh}")
    return fresh


def kind_and_settings(path: Path) -> tuple[Any, dict[str, Any]]:
    config = yaml.safe_load(path.read_text())
    module, name = config.pop("_target_").rsplit(".", 1)
    assert config.pop("_partial_") is True
    return getattr(import_module(module), name), config


def make(path: Path, classes: int = CLASSES, finish: Any = plain) -> Head:
    kind, settings = kind_and_settings(path)
    head: Head = kind(FEATURES, classes, finish, **settings)
    return head


def features(n: int = BATCH) -> Tensor:
    return torch.randn(n, FEATURES, dtype=torch.float64)


def labels(n: int = BATCH) -> Tensor:
    return torch.randint(CLASSES, (n,))


def unit(n: int, size: int = 4) -> Tensor:
    return nn.functional.normalize(torch.randn(n, size, dtype=torch.float64), dim=1)


def cross_entropy_by_hand(scores: Tensor, classes: Tensor) -> float:
    total = 0.0
    for row, y in zip(scores.tolist(), classes.tolist(), strict=True):
        total -= math.log(math.exp(row[y]) / sum(math.exp(value) for value in row))
    return total / len(scores)


@every_head
def test_the_configuration_repeats_the_defaults(path: Path) -> None:
    kind, settings = kind_and_settings(path)
    parameters = list(inspect.signature(kind).parameters.values())[3:]
    assert settings == {parameter.name: parameter.default for parameter in parameters}


@every_head
def test_a_logit_depends_on_other_images_where_the_head_says_so(path: Path) -> None:
    head, h, y = make(path).double(), features(), labels()
    logits = head(h, y)
    assert logits.shape == (BATCH,)
    alone = torch.cat([head(h[i : i + 1], y[i : i + 1]) for i in range(BATCH)])
    assert torch.allclose(logits, alone) != head.mixes_samples


@every_head
def test_who_learns_from_what(path: Path) -> None:
    """The discriminator's terms are of the head's weights and of both features; the generator's are of its fakes."""
    head = make(path).double()
    real, fake, y = features().requires_grad_(), features().requires_grad_(), labels()
    terms = head.discriminator_terms(real, fake, y)
    assert bool(terms) == head.has_terms == bool(head.generator_terms(fake, y))
    if head.has_terms:
        (reached,) = torch.autograd.grad(torch.stack([*terms.values()]).sum(), real, retain_graph=True)
        assert reached.abs().sum() > 0
        head.requires_grad_(False)
        (reached,) = torch.autograd.grad(torch.stack([*head.generator_terms(fake, y).values()]).sum(), fake)
        assert (reached.abs().sum(dim=1) > 0).any()
        head.requires_grad_(True)
        term = torch.stack([*head.discriminator_terms(real, fake, y).values()]).sum()
        torch.autograd.backward(term + head(real, y).sum())
    else:
        head(real, y).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@every_head
def test_every_layer_is_finished_as_the_network_does(path: Path) -> None:
    finished: list[nn.Module] = []

    def finish(layer: Layer) -> Layer:
        finished.append(layer)
        spectral_norm(layer)
        return layer

    head = make(path, finish=finish)
    head(features().float(), labels())
    layers = [m for m in head.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    assert {id(layer) for layer in finished} == {id(layer) for layer in layers}


@every_head
def test_without_classes_it_works_or_says_what_it_needs(path: Path) -> None:
    kind, _ = kind_and_settings(path)
    if kind.needs_classes:
        with pytest.raises(ValueError, match=f"{kind.__name__} learns from labels, and there are 0 classes"):
            make(path, classes=0)
        return
    head, h = make(path, classes=0).double(), features()
    assert torch.equal(head(h, labels()), head(h, torch.zeros(BATCH, dtype=torch.int64)))


def test_tacgan() -> None:
    head = TwinAuxiliaryClassifier(FEATURES, CLASSES, weight=0.7).double()
    real, fake, y = features(), features(), labels()
    assert {name: term.item() for name, term in head.discriminator_terms(real, fake, y).items()} == {
        "classification": pytest.approx(0.7 * cross_entropy_by_hand(head.classifier(real), y)),
        "twin_classification": pytest.approx(0.7 * cross_entropy_by_hand(head.twin(fake), y)),
    }
    assert {name: term.item() for name, term in head.generator_terms(fake, y).items()} == {
        "classification": pytest.approx(0.7 * cross_entropy_by_hand(head.classifier(fake), y)),
        "twin_classification": pytest.approx(-0.7 * cross_entropy_by_hand(head.twin(fake), y)),
    }


def test_adcgan() -> None:
    head = DiscriminativeClassifier(FEATURES, CLASSES, weight=0.7).double()
    real, fake, y = features(), features(), labels()
    both = cross_entropy_by_hand(
        torch.cat([head.classifier(real), head.classifier(fake)]), torch.cat([y, y + CLASSES])
    )
    (term,) = head.discriminator_terms(real, fake, y).values()
    assert term.item() == pytest.approx(0.7 * 2 * both)
    # The normaliser cancels: the generator wants its label's score as real above that as fake.
    scores = head.classifier(fake)
    gap = sum((scores[i, k + CLASSES] - scores[i, k]).item() for i, k in enumerate(y.tolist())) / BATCH
    (term,) = head.generator_terms(fake, y).values()
    assert term.item() == pytest.approx(0.7 * gap)


def test_contragan() -> None:
    f, p, y, t = unit(BATCH), unit(BATCH), labels(), 0.3
    total = 0.0
    for i in range(BATCH):
        own = math.exp((f[i] @ p[i]).item() / t)
        others = {k: math.exp((f[i] @ f[k]).item() / t) for k in range(BATCH) if k != i}
        alike = sum(value for k, value in others.items() if y[k] == y[i])
        total -= math.log((own + alike) / (own + sum(others.values())))
    assert contrastive_loss(f, p, y, t).item() == pytest.approx(total / BATCH, rel=1e-10)
    assert torch.autograd.gradcheck(
        lambda a, b: contrastive_loss(a, b, y, t), (f.requires_grad_(), p.requires_grad_())
    )


def test_reacgan() -> None:
    f, v, y, t, m = unit(BATCH), unit(BATCH), labels(), 0.3, 0.8
    total = 0.0
    for i in range(BATCH):
        positive = math.exp(min((f[i] @ v[i]).item() - m, 0) / t)
        others = [j for j in range(BATCH) if y[j] != y[i]]
        negative = sum(math.exp(max((f[i] @ f[j]).item() - (1 - m), 0) / t) for j in others)
        total -= math.log(positive / (positive + negative))
    assert data_to_data_cross_entropy(f, v, y, t, m).item() == pytest.approx(total / BATCH, rel=1e-10)


def test_reacgan_leaves_easy_pairs_alone() -> None:
    """What is nearer to its proxy than the margin, and further from other labels than that, has no gradient."""
    axes = torch.eye(4, dtype=torch.float64)[[0, 1, 2]].requires_grad_()
    loss = data_to_data_cross_entropy(axes, axes.detach(), torch.arange(3), 0.5, 0.9)
    (slope,) = torch.autograd.grad(loss, axes)
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("kind", [Contrastive, DataToData])
def test_embeddings_are_of_unit_length_and_of_the_right_player(kind: Any) -> None:
    head = kind(FEATURES, CLASSES, embedding_dim=5).double()
    real, fake, y = features(), features(), labels()
    (of_real,), (again,) = (head.discriminator_terms(real, x, y).values() for x in (fake, 9 * fake))
    assert of_real.item() == again.item(), "fakes teach the discriminator nothing here"
    with torch.no_grad():  # lengths do not count
        head.embedding.weight *= 3
        head.embedding.bias *= 3
        head.proxies.weight *= 5
    (longer,) = head.discriminator_terms(real, fake, y).values()
    assert longer.item() == pytest.approx(of_real.item(), rel=1e-9)


@pytest.mark.parametrize("kind", [Contrastive, DataToData])
def test_temperatures_are_positive(kind: Any) -> None:
    with pytest.raises(ValueError, match="temperature=0"):
        kind(FEATURES, CLASSES, temperature=0)
    with pytest.raises(ValueError, match="margin=2"):
        DataToData(FEATURES, CLASSES, margin=2)


def test_mhgan() -> None:
    scores, classes = (
        torch.randn(BATCH, CLASSES + 1, dtype=torch.float64),
        torch.randint(CLASSES + 1, (BATCH,)),
    )
    total = 0.0
    for row, y in zip(scores.tolist(), classes.tolist(), strict=True):
        total += max(0.0, 1 - row[y] + max(value for j, value in enumerate(row) if j != y))
    assert multi_hinge_loss(scores, classes).item() == pytest.approx(total / BATCH, rel=1e-12)
    head = MultiHinge(FEATURES, CLASSES).double()
    real, fake, y = features(), features(), labels()
    as_fake = torch.full_like(y, CLASSES)
    expected = multi_hinge_loss(head.scores(real), y) + multi_hinge_loss(head.scores(fake), as_fake)
    assert head.discriminator_terms(real, fake, y)["adversarial"].item() == pytest.approx(expected.item())
    assert head.generator_terms(fake, y)["adversarial"].item() == pytest.approx(
        multi_hinge_loss(head.scores(fake), y).item()
    )
    for i, k in enumerate(y.tolist()):
        assert head(real, y)[i].item() == pytest.approx(
            (head.scores(real)[i, k] - head.scores(real)[i, -1]).item()
        )


def test_concatenation_relates_label_and_features() -> None:
    head, h = Concatenation(FEATURES, CLASSES).double(), features()
    first, second = (head(h, torch.full((BATCH,), k)) for k in (1, 2))
    assert (first - second).std() > 1e-4


def test_minibatch_discrimination() -> None:
    layer, h = MinibatchDiscrimination(FEATURES, kernels=3, dim=2).double(), features()
    result = layer(h)
    assert torch.equal(result[:, :FEATURES], h)
    rows = (h @ layer.transform.weight.T).view(BATCH, 3, 2)
    for i in range(BATCH):
        for k in range(3):
            near = sum(
                math.exp(-(rows[i, k] - rows[j, k]).abs().sum().item()) for j in range(BATCH) if j != i
            )
            assert result[i, FEATURES + k].item() == pytest.approx(near, rel=1e-9)
    same = layer(h[:1].expand(BATCH, -1))[:, FEATURES:]
    torch.testing.assert_close(same, torch.full_like(same, BATCH - 1))
