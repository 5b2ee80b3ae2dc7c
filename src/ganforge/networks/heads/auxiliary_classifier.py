"""AC-GAN (Odena, Olah & Shlens 2017, "Conditional Image Synthesis with Auxiliary Classifier GANs")."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganforge.networks.heads.head import Finish, Head, plain


class AuxiliaryClassifier(Head):
    """An unconditional logit beside a classifier c that both players want to be right.

    With cross-entropy CE, features h, labels y (the paper's L_C, which both maximise as a log-likelihood):
    discriminator and generator add weight · (CE(c(h_real), y) + CE(c(h_fake), y)), of which the generator's steps
    move the second summand alone.

    Args:
        weight: factor of the term.
        on_fake: whether the discriminator's classifier learns from fakes as well, as in the paper.
    """

    has_terms = True
    needs_classes = True

    def __init__(
        self,
        features: int,
        num_classes: int,
        finish: Finish = plain,
        weight: float = 1.0,
        on_fake: bool = True,
    ) -> None:
        super().__init__(features, num_classes, finish)
        self.weight, self.on_fake = weight, on_fake
        self.linear = finish(nn.Linear(features, 1))
        self.classifier = finish(nn.Linear(features, num_classes))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.linear(features).squeeze(1)
        return logits

    def discriminator_terms(self, real: Tensor, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        term = cross_entropy(self.classifier(real), labels)
        if self.on_fake:
            term = term + cross_entropy(self.classifier(fake), labels)
        return {"classification": self.weight * term}

    def generator_terms(self, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"classification": self.weight * cross_entropy(self.classifier(fake), labels)}
