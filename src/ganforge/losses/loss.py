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

    of_whole_batch: ClassVar[bool] = False
    """Not a mean over samples: several processes, each with its share, do not make what one does."""

    @abstractmethod
    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Scalar the discriminator minimises."""

    @abstractmethod
    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """Scalar the generator minimises."""
