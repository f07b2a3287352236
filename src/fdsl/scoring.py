"""From per-layer token maps to an anomaly map and an image score.

An image score has two parts (the paper's test procedure): s1, the mean over layers of each map's maximum, and s2,
the maximum of the final map. Published figures min-max normalise s2 over all test images of the class; that needs
the whole test set, so it is kept apart from the score of a single image.
"""

from typing import Literal, NamedTuple, get_args

import torch.nn.functional as F
from torch import Tensor

ImageScore = Literal["transductive", "independent"]
Fusion = Literal["asl", "fd_asl"]
IMAGE_SCORES: tuple[str, ...] = get_args(ImageScore)
FUSIONS: tuple[str, ...] = get_args(Fusion)


class LayerMaps(NamedTuple):
    """Per-layer maps of B images.

    Attributes:
        learned: the head's anomaly probability, after NAM if it is on, (L, B, G, G).
        discrepancy: 1 - cosine similarity to the nearest reference token, (L, B, G, G).
    """

    learned: Tensor
    discrepancy: Tensor


class AnomalyScore(NamedTuple):
    """How anomalous each of B images is.

    Attributes:
        map: anomaly map (B, M, M).
        peak: s1 of the image score (B,).
    """

    map: Tensor
    peak: Tensor


def fuse(learned: Tensor, discrepancy: Tensor, fusion: str, weight: float) -> Tensor:
    """Fuse the learned and the training-free maps of every layer.

    ``asl`` is the released behaviour, the learned map alone; ``fd_asl`` is (1 - weight) * ASL + weight * FD.
    """
    return learned if fusion == "asl" else (1 - weight) * learned + weight * discrepancy


def anomaly_map(layer_maps: Tensor, size: int) -> Tensor:
    """Upsample bilinearly (align_corners), then take the mean over layers: (L, B, G, G) -> (B, size, size).

    In this order as published: a mean on the grid is equal but for rounding, which min-max normalisation can amplify
    to 3e-5 of an image score.
    """
    upsampled = F.interpolate(layer_maps, size=(size, size), mode="bilinear", align_corners=True)  # L B size size
    return upsampled.mean(dim=0)


def score_maps(layer_maps: Tensor, size: int) -> AnomalyScore:
    """Make the anomaly map and the peak score of per-layer maps (L, B, G, G), in fp32."""
    layer_maps = layer_maps.float()
    return AnomalyScore(anomaly_map(layer_maps, size), peak_score(layer_maps))


def blend(whole: AnomalyScore, local: AnomalyScore, weight: float) -> AnomalyScore:
    """Fuse the scores of whole images and of their windows, (1 - weight) * whole + weight * local, maps and peaks."""
    made = ((1 - weight) * w + weight * n for w, n in zip(whole, local, strict=True))
    return AnomalyScore(*made)


def peak_score(layer_maps: Tensor) -> Tensor:
    """s1, the mean over layers of the maximum of each map: (L, B, G, G) -> (B,)."""
    return layer_maps.flatten(2).amax(dim=2).mean(dim=0)


def image_score(s1: Tensor, s2: Tensor, mode: str) -> Tensor:
    """Combine both parts of the image score, (n,) and (n,) -> (n,).

    Args:
        s1: mean over layers of each token map's maximum.
        s2: maximum of each final anomaly map.
        mode: ``independent``: (s1 + s2) / 2, each image on its own. ``transductive``: s2 min-max normalised over the
            n given images, which must be all test images of one class; constant s2 counts as 0.
    """
    if mode == "transductive":
        low, high = s2.aminmax()
        s2 = (s2 - low) / (high - low) if high > low else s2 - low
    return (s1 + s2) / 2
