"""Scoring as the released code does it: one matrix product, argmax, and Python loops over patches and windows.

The baseline of ``benchmark_scoring.py``; its scores are those of ``fdsl`` (a test holds it), only its ways are plain.
"""

import torch
from torch import Tensor

from fdsl.score_learning import ScoreHead


def match(query: Tensor, bank: Tensor) -> Tensor:
    """Deviation of query tokens (N, C) from their nearest of (R, C), gathered patch by patch."""
    index = (query @ bank.T).argmax(dim=1)
    matched = torch.empty_like(query)
    for n in range(len(query)):
        matched[n] = bank[index[n]]
    return (query - matched).abs()


def classify(head: ScoreHead, deviations: list[Tensor]) -> Tensor:
    """Each layer's classifier, stage by stage, on L deviations (N, C) -> anomaly probability (L, N)."""
    scored = [c.stages(d).softmax(dim=1)[:, 1] for c, d in zip(head.classifiers, deviations, strict=True)]  # type: ignore[operator, union-attr]
    return torch.stack(scored)


def score_whole(head: ScoreHead, tokens: Tensor, bank: Tensor) -> Tensor:
    """Maps of whole images, tokens (L, B, N, C) and bank (L, R, C) -> (L, B, G, G)."""
    side = round(tokens.shape[2] ** 0.5)
    maps = [
        classify(head, [match(tokens[layer, b], bank[layer]) for layer in range(len(tokens))]).view(-1, side, side)
        for b in range(tokens.shape[1])
    ]
    return head.aggregate(torch.stack(maps, dim=1))


def score_windows(head: ScoreHead, tokens: Tensor, bank: Tensor) -> Tensor:
    """Probability of each window's tokens, (L, W, N, C) and bank (L, R, C) -> (L, W, N), window by window."""
    return torch.stack(
        [
            classify(head, [match(tokens[layer, w], bank[layer]) for layer in range(len(tokens))])
            for w in range(tokens.shape[1])
        ],
        dim=1,
    )


def stitch(head: ScoreHead, scores: Tensor, boxes: Tensor, grid: int) -> Tensor:
    """Lay window scores (L, W, N) into the grid window by window, then NAM: (L, 1, G, G)."""
    size = round(scores.shape[2] ** 0.5)
    total, count = torch.zeros(len(scores), grid, grid), torch.zeros(grid, grid)
    for w, (top, bottom, left, right) in enumerate(boxes.tolist()):
        total[:, top:bottom, left:right] += scores[:, w].view(-1, size, size).cpu()
        count[top:bottom, left:right] += 1
    return head.aggregate((total / count)[:, None].to(scores))
