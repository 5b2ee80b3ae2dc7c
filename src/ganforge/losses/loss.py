"""What every adversarial loss offers: a scalar for the discriminator and a scalar for the generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Loss(ABC):
    """A pair of scalars to minimise, each a function of logits of which higher means more real.

    Logits are floating point (B,), raw (no sigmoid was applied); float32 is advised, as differences of large
    bfloat16 logits lose digits. Expectations are means over the batch.
    """

    needs_lipschitz: ClassVar[bool] = False
    """Means nothing unless a penalty or the network bounds the critic's slope."""

    generator_uses_real: ClassVar[bool] = False
    """The generator's loss also reads `real_logits`; the others ignore it, and it may be None for them."""

    estimates_density_ratio: ClassVar[bool] = False
    """The best discriminator's logits are log p_data / p_generator: sampling may go by them."""

    undecided_at_zero: bool = True
    """A logit of 0 says neither real nor fake, and its sign is the discriminator's verdict. Where not, logits have
    another middle, or none of their own."""

    middle: float = 0.0
    """The logit that says neither; of losses whose `generator_uses_real` none is asked for."""

    of_whole_batch: ClassVar[bool] = False
    """Not a mean over samples: several processes, each with its share, do not make what one does."""

    @abstractmethod
    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Scalar the discriminator minimises."""

    @abstractmethod
    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """Scalar the generator minimises."""
