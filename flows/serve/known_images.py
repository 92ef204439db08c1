"""Tells whether an image that is asked about is one of the hospital's own, by what the frozen base sees of it."""

from collections.abc import Iterable

import torch

from tasks.engine.vision import Features
from tasks.records import Case

RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""How much features of the same image may differ, as those of another batch do."""


class KnownImages:
    """The hospital's images, to be found by their features.

    Args:
        cases: the hospital's cases; each image is found as the image of its first case.
        features: features of all their images.
    """

    def __init__(self, cases: Iterable[Case], features: Features) -> None:
        listed = list(cases)
        self._cases = list({case.image_id: case for case in reversed(listed)}.values())
        self._features = features
        pieces = [features.of(case.image_id).float() for case in self._cases]
        self._means = torch.stack([piece.mean(0) for piece in pieces]) if pieces else torch.zeros(0, 0)
        self._slack = ABSOLUTE + RELATIVE * (torch.stack([piece.abs().mean(0) for piece in pieces]) if pieces else 0)

    def find(self, piece: torch.Tensor) -> Case | None:
        """A case whose image has the features `(tokens, d)`; None if no image has.

        Where all features agree within the tolerance, their means do too: so few images are compared in full.
        """
        if not self._cases or piece.shape[1] != self._means.shape[1]:
            return None
        one = piece.float()
        near = ((self._means - one.mean(0)).abs() <= 1.01 * self._slack + 1e-6).all(1)
        for place in near.nonzero().flatten().tolist():
            case = self._cases[place]
            other = self._features.of(case.image_id)
            if one.shape == other.shape and torch.allclose(one, other.float(), rtol=RELATIVE, atol=ABSOLUTE):
                return case
        return None
