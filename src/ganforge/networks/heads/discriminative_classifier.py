"""ADC-GAN (Hou et al. 2022, "Conditional GANs with Auxiliary Discriminative Classifier", arXiv:2107.10060)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganforge.networks.heads.head import Finish, Head, plain


class DiscriminativeClassifier(Head):
    """An unconditional logit beside one classifier of 2K classes, which are each label's real and fake images.

    With cross-entropy CE, features h, labels y, the classes (y, real) and (y, fake) of the classifier c:

        discriminator: weight · (CE(c(h_real), (y, real)) + CE(c(h_fake), (y, fake)))
        generator:     weight · (CE(c(h_fake), (y, real)) - CE(c(h_fake), (y, fake)))

    Args:
        weight: factor of the classifier's terms, λ.
    """

    has_terms = True
    needs_classes = True

    def __init__(self, features: int, num_classes: int, finish: Finish = plain, weight: float = 1.0) -> None:
        super().__init__(features, num_classes, finish)
        self.weight = weight
        self.num_classes = num_classes
        self.linear = finish(nn.Linear(features, 1))
        # The first K classes are of real images, the last K of fakes.
        self.classifier = finish(nn.Linear(features, 2 * num_classes))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.linear(features).squeeze(1)
        return logits

    def discriminator_terms(self, real: Tensor, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        of_real = cross_entropy(self.classifier(real), labels)
        of_fake = cross_entropy(self.classifier(fake), labels + self.num_classes)
        return {"classification": self.weight * (of_real + of_fake)}

    def generator_terms(self, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        classes = self.classifier(fake)
        as_real = cross_entropy(classes, labels)
        as_fake = cross_entropy(classes, labels + self.num_classes)
        return {"classification": self.weight * (as_real - as_fake)}
