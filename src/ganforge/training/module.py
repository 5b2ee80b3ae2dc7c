"""The LightningModule that plays any game: discriminator and generator updates in turn, counted in images."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from ganforge.draws import Draws, derive_seed
from ganforge.evaluation.ranks import Ranks
from ganforge.games.game import Batch, Game, Terms, Turn
from ganforge.games.sampling import batch_norms
from ganforge.images import to_float
from ganforge.training.ema import EMA
from ganforge.training.gradients import average_gradients_
from ganforge.training.meter import Meter, NonFiniteLossError
from ganforge.training.player import Player
from ganforge.training.rounds import flip_horizontally
from ganforge.training.run import Run


class AdversarialModule(LightningModule):
    """Alternates the two players of a game.

    A round is `discriminator_steps` updates of the discriminator side, each on `batch_size` fresh images, and one of
    the generator side. `images_seen` is the clock of everything. All randomness of round k follows from (seed, k).
    Where several ranks share the batch, all hold the same weights, buffers and optimizer states after every round.

    Args:
        game: the rules of play.
        discriminator, generator: how each side learns.
        ema: moving average of the generator side.
        seed: the run's seed.
        batch_size: images an update sees, over all ranks and micro-batches.
        discriminator_steps: discriminator updates a round.
        accumulate: micro-batches an update's batch is cut into, to save memory.
        flip: whether real images are mirrored at random.
        gradient_norm_every: rounds between measurements of both gradient norms.
        channels_last: whether real images are handed on in that order in memory.
        frozen: modules of the players whose parameters ask for no gradient and whose buffers stay as they are.

    Attributes:
        step_seconds: how long one of Lightning's steps may go on with further rounds. What Lightning does between two
            steps takes longer than a tenth of a small network's round.
        backward_is_heard: whether a callback is to be called before or after backward passes.
        waited_seconds, longest_wait_seconds: for batches, all together and the longest; who reads it sets it to 0.
        waiting_since: when the wait that goes on began; None while a round is played.
        interruptions: each says whether there is something to do after the round that just ended; then the step ends.

    Raises:
        ValueError: when `batch_size` cannot be cut into `accumulate` micro-batches.
    """

    def __init__(
        self,
        game: Game,
        *,
        discriminator: Player,
        generator: Player,
        ema: EMA,
        seed: int = 0,
        batch_size: int = 64,
        discriminator_steps: int = 1,
        accumulate: int = 1,
        flip: bool = False,
        gradient_norm_every: int = 8,
        channels_last: bool = False,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if accumulate < 1 or batch_size % accumulate:
            raise ValueError(
                f"batch_size={batch_size} cannot be cut into accumulate={accumulate} equal micro-batches"
            )
        if discriminator_steps < 1:
            raise ValueError(f"discriminator_steps={discriminator_steps} must be at least 1")
        self.game = game
        self.ema = ema
        self.players = {"discriminator": discriminator, "generator": generator}
        self.seed = seed
        self.batch_size = batch_size
        self.discriminator_steps = discriminator_steps
        self.accumulate = accumulate
        self.flip = flip
        self.gradient_norm_every = gradient_norm_every
        self.channels_last = channels_last
        self.frozen = tuple(frozen)
        self.train(self.training)
        self.run: Run | None = None
        self.step_seconds = 0.0
        self.backward_is_heard = True
        self.interruptions: Sequence[Callable[[AdversarialModule, Run], bool]] = ()
        self.images_seen = 0
        self.round = 0
        self.waited_seconds = 0.0
        self.longest_wait_seconds = 0.0
        self.waiting_since: float | None = None
        self.meter = Meter()
        self._averaged: dict[str, list[Tensor]] = {"discriminator": [], "generator": []}
        self._parameters_of = {
            "discriminator": [p for p in game.discriminator_side.parameters() if p.requires_grad],
            "generator": [p for p in game.generator_side.parameters() if p.requires_grad],
        }

    @property
    def images_per_round(self) -> int:
        return self.batch_size * self.discriminator_steps

    @property
    def kimg(self) -> float:
        return self.images_seen / 1000

    def train(self, mode: bool = True) -> AdversarialModule:
        """Frozen modules stay in evaluation mode: batch norm gathers nothing, spectral norm iterates no further."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def configure_optimizers(self) -> list[Optimizer]:
        optimizers = [player.start(self._parameters_of[side]) for side, player in self.players.items()]
        if self.device.type == "cpu":
            for optimizer in optimizers:
                # Adam asks at each step whether an accelerator is recording a graph. Where CUDA is installed and no
                # GPU is there, that looks for the driver's files each time: a third of a small network's step.
                optimizer._accelerator_graph_capture_health_check = _nothing  # type: ignore[method-assign]
        return optimizers

    def on_train_start(self) -> None:
        for optimizer in self.trainer.optimizers:  # a checkpoint's hold the settings that they were made with
            for group in optimizer.param_groups:
                group.update(optimizer.defaults)
        norms = batch_norms(self.game)
        gathered = self.game.averaged_over_ranks()
        of_norms = [t for norm in norms for t in (norm.running_mean, norm.running_var)]
        self._averaged = {"discriminator": gathered, "generator": [*gathered, *of_norms]}

    def training_step(self, dataloader_iter: Iterator[tuple[dict[str, Tensor], int, int]]) -> None:
        """Plays a round, and more of them while there is nothing else to do: see `step_seconds`."""
        until = time.perf_counter() + self.step_seconds
        while True:
            batch = self._next(dataloader_iter)
            batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
            self.play_round(self.trainer.precision_plugin.convert_input(batch))
            if time.perf_counter() >= until or self.interrupted():
                return

    def _next(self, batches: Iterator[tuple[dict[str, Tensor], int, int]]) -> dict[str, Tensor]:
        self.waiting_since = since = time.perf_counter()
        batch, *_ = next(batches)
        self.waiting_since, waited = None, time.perf_counter() - since
        self.waited_seconds += waited
        self.longest_wait_seconds = max(self.longest_wait_seconds, waited)
        return batch

    def interrupted(self) -> bool:
        """Whether the round that just ended is the last one, or one that a callback acts after."""
        assert self.run is not None
        return self.run.ends(self.images_seen) or any(due(self, self.run) for due in self.interruptions)

    def play_round(self, batch: Mapping[str, Tensor]) -> None:
        """One round on this rank's share of its `images_per_round` images, uint8 or floating-point, and labels."""
        ranks = Ranks.current()
        # Networks that draw from the global generator (dropout) repeat themselves after a resume as well; ranks, each
        # with its own share of the batch, do not repeat one another.
        seed = derive_seed(self.seed, "global", self.round, *([ranks.rank] if ranks.rank else []))
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        turn = Turn(self.images_seen, self.round, Draws(self.seed, self.round, ranks.rank, ranks.size))
        batches = self._micro_batches(batch, turn.draws, ranks.size)
        steps = [batches[i : i + self.accumulate] for i in range(0, len(batches), self.accumulate)]
        optimizers: Any = self.optimizers()
        discriminator_optimizer, generator_optimizer = optimizers
        for micro_batches in steps:
            turn.last_step = micro_batches is steps[-1]
            self._update(
                "discriminator", discriminator_optimizer, self.game.discriminator_terms, micro_batches, turn
            )
            self.game.after_discriminator_step()
        self._set_trainable("discriminator", False)
        self._update("generator", generator_optimizer, self.game.generator_terms, steps[-1], turn)
        self.game.after_generator_step()
        self._set_trainable("discriminator", True)
        self.meter.add("train/discriminator/", turn.observations)
        self.images_seen += self.images_per_round
        self.round += 1
        self.ema.update(self.game.generator_side, self.images_seen, self.images_per_round)

    def learning_rates(self) -> dict[str, float]:
        """The next round's learning rate of each player, by logged name."""
        optimizers = zip(self.players, self.trainer.optimizers, strict=True)
        return {f"train/{side}/learning_rate": o.param_groups[0]["lr"] for side, o in optimizers}

    def trained(self, side: str) -> list[nn.Parameter]:
        """The parameters that a side's optimizer steps."""
        return self._parameters_of[side]

    def check_finite(self) -> None:
        """Raises NonFiniteLossError where a side holds a NaN or infinite weight.

        It names the term that the weight came from, where one was not finite, and else the first such weight.
        """
        for side, parameters in self._parameters_of.items():
            if parameters and not torch.isfinite(_total_norm(parameters)):
                self.meter.means()  # names the term
                network = getattr(self.game, f"{side}_side")
                bad = [name for name, p in network.named_parameters() if not torch.isfinite(p).all()]
                count = f", {bad[0]} first of {len(bad)}" if bad else ""
                raise NonFiniteLossError(f"the {side}'s weights became NaN or infinite{count}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["clock"] = {"images_seen": self.images_seen, "round": self.round}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.images_seen = checkpoint["clock"]["images_seen"]
        self.round = checkpoint["clock"]["round"]

    def _micro_batches(self, batch: Mapping[str, Tensor], draws: Draws, ranks: int) -> list[Batch]:
        """This rank's share of the round's micro-batches: `accumulate` for each discriminator step, in order."""
        images = batch["images"]
        if images.dtype == torch.uint8:
            images = to_float(images).to(self.dtype)
        size = self.batch_size // self.accumulate // ranks
        parts = torch.split(images, size)
        if self.flip:
            parts = tuple(flip_horizontally(part, draws) for part in parts)
        if self.channels_last:
            parts = tuple(part.contiguous(memory_format=torch.channels_last) for part in parts)
        pairs = zip(parts, torch.split(batch["labels"], size), strict=True)
        return [{"images": images, "labels": labels} for images, labels in pairs]

    def _update(
        self,
        side: str,
        optimizer: Any,
        terms_of: Callable[[Batch, Turn], Terms],
        micro_batches: list[Batch],
        turn: Turn,
    ) -> None:
        player, parameters = self.players[side], self._parameters_of[side]
        player.set_time(optimizer, turn.images_seen / 1000)
        optimizer.zero_grad()
        for micro_batch in micro_batches:
            terms = terms_of(micro_batch, turn)
            self.meter.add(f"train/{side}/", terms)
            self._backward(_sum(terms) / len(micro_batches))
        average_gradients_(parameters, self._averaged[side])
        self._bound_gradient(side, player, parameters, turn.round)
        optimizer.step()

    def _backward(self, loss: Tensor) -> None:
        """Lightning's way only where its hooks are heard: no precision that is taken here scales the loss."""
        if self.backward_is_heard:
            self.manual_backward(loss)
        else:
            loss.backward()  # type: ignore[no-untyped-call]

    def _bound_gradient(self, side: str, player: Player, parameters: list[nn.Parameter], round_: int) -> None:
        if player.clip_norm is None and round_ % self.gradient_norm_every:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = _total_norm(gradients)
        self.meter.add(f"train/{side}/", {"gradient_norm": norm})
        if player.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, player.clip_norm, norm)

    def _set_trainable(self, side: str, trainable: bool) -> None:
        for parameter in self._parameters_of[side]:
            parameter.requires_grad = trainable


def _nothing() -> None:
    return None


def _sum(terms: Terms) -> Tensor:
    return functools.reduce(torch.add, terms.values())


def _total_norm(tensors: Iterable[Tensor]) -> Tensor:
    norms = torch._foreach_norm([t.detach() for t in tensors])
    norm: Tensor = torch.linalg.vector_norm(torch.stack(list(norms)))
    return norm
