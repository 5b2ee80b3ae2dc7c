"""TAC-GAN (Gong et al. 2019, "Twin Auxiliary Classifiers GAN", arXiv:1907.02690)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganforge.networks.heads.head import Finish, Head, plain


class TwinAuxiliaryClassifier(Head):
    """An unconditional logit beside two classifiers: c of real images, and its twin t of fakes, whom G works against.

    With cross-entropy CE, features h, labels y:

        discriminator: weight · (CE(c(h_real), y) + CE(t(h_fake), y))
        generator:     weight · (CE(c(h_fake), y) - CE(t(h_fake), y))

    AC-GAN's generator leaves out what classes have in common; the twin, which can tell fakes apart better than c
    wherever G does so, takes that advantage away. Who learns from what is as in the authors' code.

    Args:
        weight: factor of both classifiers' terms, λ_c.
    """

    has_terms = True
    needs_classes = True

    def __init__(self, features: int, num_classes: int, finish: Finish = plain, weight: float = 1.0) -> None:
        super().__init__(features, num_classes, finish)
        self.weight = weight
        self.linear = finish(nn.Linear(features, 1))
        self.classifier = finish(nn.Linear(features, num_classes))
        self.twin = finish(nn.Linear(features, num_classes))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.linear(features).squeeze(1)
        return logits

    def discriminator_terms(self, real: Tensor, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {
            "classification": self.weight * cross_entropy(self.classifier(real), labels),
            "twin_classification": self.weight * cross_entropy(self.twin(fake), labels),
        }

    def generator_terms(self, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {
            "classification": self.weight * cross_entropy(self.classifier(fake), labels),
            "twin_classification": -self.weight * cross_entropy(self.twin(fake), labels),
        }
