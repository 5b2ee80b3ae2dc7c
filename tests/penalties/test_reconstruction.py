"""FastGAN's reconstruction: against its parts by hand, and decoders that are the discriminator's own."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from ganforge.draws import Draws
from ganforge.games.game import Turn
from ganforge.games.synthesis import Synthesis
from ganforge.losses.hinge import Hinge
from ganforge.networks import fastgan, mlp
from ganforge.penalties.penalty import Penalty
from ganforge.penalties.reconstruction import Reconstruction, quarters


def discriminator(size: int = 64, norm: str = "layer") -> fastgan.Discriminator:
    network = fastgan.Discriminator(size, 3, width=4, norm=norm)  # type: ignore[arg-type]
    network.add_decoders()
    return network


def test_quarters_lie_where_they_lay() -> None:
    x = torch.randn(3, 2, 8, 8)
    expected = [x[:, :, t : t + 4, left : left + 4] for t in (0, 4) for left in (0, 4)]
    assert torch.equal(quarters(x), torch.stack(expected, dim=1))


def test_the_penalty_by_hand() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    network, x = discriminator(), torch.rand(5, 3, 64, 64) * 2 - 1
    for layer in network.modules():
        layer.eval()  # spectral norm's vectors stay
    which = Draws(seed, 0).integers(4, 5)
    maps = [network.layers[:k](x) for k in (network.layers_to_8x8, network.layers_to_8x8 - 1)]
    assert [m.shape[2] for m in maps] == [8, 16]
    assert network.decoders is not None
    expected = (network.decoders[0](maps[0]) - avg_pool2d(x, 2)).abs().mean()
    for i, k in enumerate(which.tolist()):
        t, left = k // 2, k % 2
        part = maps[1][i : i + 1, :, 8 * t : 8 * t + 8, 8 * left : 8 * left + 8]
        target = x[i, :, 32 * t : 32 * t + 32, 32 * left : 32 * left + 32]
        expected = expected + (network.decoders[1](part)[0] - target).abs().mean() / 5
    torch.testing.assert_close(Reconstruction(weight=3.0)(network, x, Draws(seed, 0)), 3 * expected)


@pytest.mark.parametrize(("size", "decoded"), [(64, 32), (256, 128), (1024, 128)])
def test_images_are_reconstructed_at_128_at_most(size: int, decoded: int) -> None:
    with torch.device("meta"):
        network = discriminator(size)
        made = network.reconstruct(torch.zeros(2, 3, size, size), torch.zeros(2, dtype=torch.int64))
    assert [m.shape for m in made] == [(2, 3, decoded, decoded)] * 2


def test_the_discriminator_holds_the_decoders_and_learns_by_them() -> None:
    plain = fastgan.Discriminator(64, 3, width=4, norm="none")
    penalties: dict[str, Penalty] = {"reconstruction": Reconstruction()}
    network = copy.deepcopy(plain)
    generator = fastgan.Generator(4, 64, 3, width=2)
    game = Synthesis(generator, network, Hinge(), penalties)
    added = {name for name, _ in network.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert added
    assert all(name.startswith("decoders.") for name in added)
    assert not list(game.penalties.parameters())
    batch = {"images": torch.rand(4, 3, 64, 64), "labels": torch.zeros(4, dtype=torch.int64)}
    terms = game.discriminator_terms(batch, Turn(0, 0, Draws(0, 0)))
    assert set(terms) == {"adversarial", "reconstruction"}
    terms["reconstruction"].backward()
    for name, parameter in network.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        beyond = int(name.split(".")[1]) >= network.layers_to_8x8 if name.startswith("layers.") else False
        assert reached != (beyond or name.startswith("head.")), name
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_ranks_choose_the_quarters_that_one_would() -> None:
    network, x = discriminator(norm="none").eval(), torch.rand(4, 3, 64, 64)
    seed = random.randrange(2**32)
    penalty = Reconstruction()
    whole = penalty(network, x, Draws(seed, 0))
    shares = [penalty(network, x.chunk(2)[rank], Draws(seed, 0, rank, world_size=2)) for rank in (0, 1)]
    torch.testing.assert_close(torch.stack(shares).mean(), whole)


def test_it_learns_to_reconstruct() -> None:
    network, x = discriminator(norm="batch"), torch.rand(1, 3, 1, 1).expand(4, 3, 64, 64) * 2 - 1
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    penalty, values = Reconstruction(), []
    for step in range(12):
        optimizer.zero_grad()
        value = penalty(network, x, Draws(0, step))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0], values


def test_other_networks_are_refused() -> None:
    networks: list[nn.Module] = [mlp.Generator(4, 8, 1, width=4), mlp.Discriminator(8, 1, width=4)]
    with pytest.raises(ValueError, match=r"penalty=\[reconstruction\] needs .*mlp has none: model=fastgan"):
        Synthesis(*networks, Hinge(), {"reconstruction": Reconstruction()})
