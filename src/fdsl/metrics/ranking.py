"""Exact ranking metrics from one sort: AUROC, average precision and the best F1.

All three read the same cumulative counts, so the scores, 57.6 million for a thousand 240 x 240 maps, are
sorted once. Nothing is binned. This module knows only scores and 0/1 labels; whether they are of images or of
pixels is the caller's affair.

Where a metric is undefined, because the labels hold no positive or no negative, it is NaN; the caller reports
that.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class RankedCounts(NamedTuple):
    """What each threshold admits, from the strictest to the loosest.

    The first entry is the threshold above every score, which admits nothing, and the last admits everything.
    Equal scores cross a threshold together, as in scikit-learn. In a run of thresholds that add negatives
    alone, only the last is kept: the others lie on the straight line towards it in the ROC and
    per-region-overlap planes, add no term to average precision and lower F1. Leaving them out is exact and
    keeps a class of mostly normal pixels small in memory.

    Attributes:
        true_positives: (K,) float64, ascending from 0 to P, the number of positives.
        false_positives: (K,) float64, ascending from 0 to the number of negatives.
        ranked_positives: (P,) int64, flat indices of the positives by descending score; the first
            ``true_positives[k]`` of them are those that threshold ``k`` admits.
    """

    true_positives: Tensor
    false_positives: Tensor
    ranked_positives: Tensor


def ranked_counts(scores: Tensor, labels: Tensor) -> RankedCounts:
    """Sort once and count the positives and negatives that each distinct threshold admits.

    Args:
        scores: floating point, any shape, finite; higher means more anomalous.
        labels: bool or number, the shape of ``scores``; 1 anomalous, 0 normal.

    Returns:
        The counts, on the device of ``scores``.

    Raises:
        ValueError: if the shapes differ, the input is empty, the scores are not finite floating point
            numbers, or a label is neither 0 nor 1.
    """
    _check_scores(scores, labels)
    labels = binary(labels).flatten()

    ranked, order = scores.detach().flatten().sort(descending=True)
    # A threshold lies wherever the score changes, and at either end; its place is the number it admits.
    admitted = F.pad(ranked[1:] != ranked[:-1], (1, 1), value=True).nonzero().squeeze(1)
    del ranked  # a quarter of a gigabyte for a large class

    positive = labels[order].bool()
    ranked_positives = order[positive]
    del order

    true_positives = F.pad(positive.cumsum(0), (1, 0))[admitted]
    gains = F.pad(true_positives[1:] > true_positives[:-1], (1, 1), value=True)
    corners = gains[:-1] | gains[1:]
    true_positives, admitted = true_positives[corners], admitted[corners]
    # float64 holds every integer below 2**53; dividing int64 tensors would fall back to float32.
    return RankedCounts(true_positives.double(), (admitted - true_positives).double(), ranked_positives)


def auroc(counts: RankedCounts) -> float:
    """Area under the ROC curve, in [0, 1]; a tie counts one half. NaN without a positive or a negative."""
    if is_undefined(counts):
        return float("nan")
    tp, fp = counts.true_positives, counts.false_positives
    return float(torch.trapezoid(tp, fp) / (tp[-1] * fp[-1]))


def average_precision(counts: RankedCounts) -> float:
    r"""Average precision :math:`\sum_n (R_n - R_{n-1}) P_n`, in (0, 1]. NaN without a positive or a negative.

    R is recall and P precision at the n-th threshold, without interpolation, as in
    ``sklearn.metrics.average_precision_score``.
    """
    if is_undefined(counts):
        return float("nan")
    tp, fp = counts.true_positives, counts.false_positives
    precision = tp[1:] / (tp[1:] + fp[1:])
    return float((tp.diff() * precision).sum() / tp[-1])


def f1_max(counts: RankedCounts) -> float:
    """Highest F1 over all thresholds, ``2 TP / (2 TP + FP + FN)``, in (0, 1]. NaN as :func:`auroc`."""
    if is_undefined(counts):
        return float("nan")
    tp, fp = counts.true_positives, counts.false_positives
    return float((2 * tp / (tp + fp + tp[-1])).max())


def summarise(counts: RankedCounts) -> dict[str, float]:
    """The three metrics under their short names: ``auroc``, ``f1max`` and ``ap``."""
    return {"auroc": auroc(counts), "f1max": f1_max(counts), "ap": average_precision(counts)}


def ranking_metrics(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """AUROC, best F1 and average precision from a single sort.

    Args:
        scores: as for :func:`ranked_counts`.
        labels: as for :func:`ranked_counts`.

    Returns:
        ``{"auroc", "f1max", "ap"}``, each in [0, 1], or all NaN when one of the two labels is absent.

    Raises:
        ValueError: as :func:`ranked_counts`.

    Example:
        >>> ranking_metrics(torch.tensor([0.1, 0.9, 0.4]), torch.tensor([0, 1, 0]))
        {'auroc': 1.0, 'f1max': 1.0, 'ap': 1.0}
    """
    return summarise(ranked_counts(scores, labels))


def is_undefined(counts: RankedCounts) -> bool:
    """Whether the labels hold no positive or no negative, so that no metric here has a value."""
    return bool(counts.true_positives[-1] == 0 or counts.false_positives[-1] == 0)


def binary(labels: Tensor) -> Tensor:
    """Labels of 0 and 1 as uint8, shape unchanged.

    Raises:
        ValueError: if a label is neither 0 nor 1.
    """
    if labels.dtype != torch.bool and not ((labels == 0) | (labels == 1)).all():
        low, high = labels.min().item(), labels.max().item()
        raise ValueError(
            f"labels must be 0 (normal) or 1 (anomalous), got values from {low} to {high}; "
            "make a grey mask binary first, for example with `mask > 0`"
        )
    return labels.to(torch.uint8)


def _check_scores(scores: Tensor, labels: Tensor) -> None:
    if scores.shape != labels.shape:
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} must have the same shape: one "
            "0/1 label for each score"
        )
    if scores.numel() == 0:
        raise ValueError("scores and labels are empty: pass at least one scored image or pixel")
    if not scores.is_floating_point():
        raise ValueError(f"scores must be floating point, got {scores.dtype}; convert with `scores.float()`")
    finite = torch.isfinite(scores)
    if not finite.all():
        bad = (~finite).nonzero()
        raise ValueError(
            f"scores hold {len(bad)} NaN or infinite values of {scores.numel()}, the first at index "
            f"{tuple(bad[0].tolist())}; they have no rank, look for a division by zero upstream"
        )
