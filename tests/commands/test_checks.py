"""What several processes are told of parts that do not see the whole batch."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ganforge.commands.checks import check_shares
from ganforge.games.ebgan import EBGAN
from ganforge.games.game import Game
from ganforge.games.synthesis import Synthesis
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import autoencoder, mlp, stylegan2
from ganforge.penalties.feature_matching import FeatureMatching
from ganforge.penalties.max_gradient import MaxGradient
from ganforge.penalties.r1 import R1


def said(game: Game, caplog: pytest.LogCaptureFixture, batch_size: int = 8) -> str:
    trainer = {"accelerator": "cpu", "devices": 2}
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="ganforge"):
        check_shares({"trainer": trainer, "batch_size": batch_size, "accumulate": 1}, game)
    return caplog.text


def synthesis(**settings: Any) -> Synthesis:
    generator = mlp.Generator(latent_dim=2, image_size=None, channels=2, width=8)
    return Synthesis(generator, mlp.Discriminator(None, 2, width=8), NonSaturating(), **settings)


def test_parts_that_are_no_means_over_samples_are_named(caplog: pytest.LogCaptureFixture) -> None:
    assert said(synthesis(penalties={"r1": R1(gamma=1.0)}), caplog) == ""
    for penalty in (MaxGradient(), FeatureMatching()):
        assert type(penalty).__name__ in said(synthesis(penalties={"it": penalty}), caplog)
    assert "game.top_k: each process takes its own share" in said(synthesis(top_k=0.5), caplog)


def test_the_pulling_away_term_is_of_a_share(caplog: pytest.LogCaptureFixture) -> None:
    def game(weight: float) -> EBGAN:
        generator = mlp.Generator(latent_dim=2, image_size=None, channels=2, width=8)
        return EBGAN(generator, autoencoder.Discriminator(None, 2, width=8), pulling_away_weight=weight)

    assert "EBGAN" in said(game(0.1), caplog)
    assert said(game(0.0), caplog) == ""


def test_groups_of_images_have_to_divide_a_share(caplog: pytest.LogCaptureFixture) -> None:
    generator = stylegan2.Generator(4, 8, 1, width=4, w_dim=4, depth=1)
    game = Synthesis(generator, stylegan2.Discriminator(8, 1, width=4, group_size=4), NonSaturating())
    assert said(game, caplog, batch_size=16) == ""
    assert "MinibatchDeviation" in said(game, caplog, batch_size=12)
