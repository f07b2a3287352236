"""Scores with near ties resolved as the published vectors have them.

Where two reference tokens are equally near to within a rounding, processors differ in which one they pick; with NAM
one such pick moves a twentieth of a map. So agreement is asked of the scores that result when, of such tokens, the one
is taken that brings the map closest to the published one: everything else must agree to the last rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fdsl.discrepancy import nearest
from fdsl.score_learning import ScoreHead
from fdsl.scoring import AnomalyScore

GAP = 1e-6
"""Cosine similarities that differ by less are a near tie."""


@dataclass
class Matching:
    """Query tokens with the reference tokens that our search picks, checked against one in double precision."""

    query: Tensor  # L U N C
    bank: Tensor  # L R C
    index: Tensor  # L U*N
    ties: list[tuple[int, int, list[int]]]  # layer, query token, the reference tokens that are as near
    probability: Tensor  # L U N, of being anomalous

    @classmethod
    def of(cls, head: ScoreHead, query: Tensor, bank: Tensor) -> "Matching":
        flat = query.flatten(1, 2)
        ties: list[tuple[int, int, list[int]]] = []
        index = []
        for layer, (q, r) in enumerate(zip(flat, bank, strict=True)):
            picked = nearest(q, r)[1]
            similarity = q.double() @ r.double().T
            best, order = similarity.topk(min(8, len(r)), dim=1)
            assert (best[:, 0] - similarity.take_along_dim(picked[:, None], dim=1)[:, 0]).max() < GAP
            index.append(picked)
            near = best[:, :1] - best < GAP
            for token in (near.sum(dim=1) > 1).nonzero()[:, 0].tolist():
                ties.append((layer, token, order[token][near[token]].tolist()))
        matched = bank.take_along_dim(torch.stack(index)[..., None], dim=1)
        deviation = (query - matched.view_as(query)).abs()
        return cls(query, bank, torch.stack(index), ties, head.classify(deviation)[..., 1])

    def pick(self, head: ScoreHead, layer: int, token: int, reference: int) -> None:
        """Match one query token with another reference token."""
        self.index[layer, token] = reference
        deviation = (self.query.flatten(1, 2)[layer, token] - self.bank[layer, reference]).abs()
        probability = head.classifiers[layer](deviation[None])[0, 1]
        self.probability.flatten(1, 2)[layer, token] = probability


def resolve(
    head: ScoreHead,
    matchings: list[Matching],
    render: Callable[[list[Tensor]], AnomalyScore],
    difference: Callable[[Tensor], Tensor],
) -> AnomalyScore:
    """Choose among near ties so as to come closest to the published map.

    Args:
        head: classifies deviations.
        matchings: of each branch of one image.
        render: from the branches' probabilities (L, U, N) to the image's score.
        difference: of an anomaly map (1, M, M) to the published one.
    """

    def scored() -> tuple[AnomalyScore, float]:
        score = render([m.probability for m in matchings])
        return score, float(difference(score.map).double().pow(2).sum())

    best, error = scored()
    for _ in range(2):  # a pick can become right only after its neighbour's
        for matching in matchings:
            for layer, token, references in matching.ties:
                for reference in references:
                    before = int(matching.index[layer, token])
                    matching.pick(head, layer, token, reference)
                    score, now = scored()
                    if now < error:
                        best, error = score, now
                    else:
                        matching.pick(head, layer, token, before)
    return best
