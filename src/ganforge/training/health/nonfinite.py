"""NaN and infinity: every term is looked at whenever means are taken, every weight before a checkpoint is written."""

from __future__ import annotations

from ganforge.training.health.check import Action, Check, Signals


class NonFinite(Check):
    """What `NonFiniteLossError` says; there is nothing to train on from, so the run ends or goes back.

    Raises:
        ValueError: action=warn.
    """

    advice = "a lower learning rate, clip_norm, a penalty on the discriminator; float32 in place of bf16"

    def __init__(self, action: Action = "stop") -> None:
        super().__init__(threshold=0.0, action=action, patience=1)
        if action == "warn":
            raise ValueError(
                "action=warn: weights that are NaN cannot be trained on; it can be stop or rollback"
            )

    def measure(self, signals: Signals) -> float | None:
        return None

    def say(self, value: float, signals: Signals) -> str:
        raise AssertionError("the error says it")
