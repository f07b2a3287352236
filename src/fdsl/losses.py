"""What the head is trained to minimise: focal loss on both channels plus soft Dice on the anomalous one."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

SMOOTHING = 1e-5


def focal_loss(probability: Tensor, mask: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss of class probabilities, without class weights (Lin et al., 2017).

    As published for FDSL: targets clamped to [1e-5, 1 - 1e-5], and 1e-5 added to the probability of the truth.

    Args:
        probability: (B, 2, H, W), summing to one over the channels.
        mask: (B, H, W), 1 where anomalous.
        gamma: how strongly pixels that are already right are discounted.

    Returns:
        mean over pixels, a scalar.
    """
    target = mask.to(probability.dtype).clamp(SMOOTHING, 1 - SMOOTHING)
    truth = (1 - target) * probability[:, 0] + target * probability[:, 1] + SMOOTHING  # B H W
    return -((1 - truth).pow(gamma) * truth.log()).mean()


def dice_loss(probability: Tensor, mask: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss of the anomalous channel, mean over images (Milletari et al., 2016).

    Args:
        probability: anomaly probability (B, H, W).
        mask: (B, H, W), 1 where anomalous.
        smooth: added to numerator and denominator, so that an image without defect has a defined loss.
    """
    p, t = probability.flatten(1), mask.to(probability.dtype).flatten(1)
    dice = (2 * (p * t).sum(dim=1) + smooth) / (p.sum(dim=1) + t.sum(dim=1) + smooth)
    return 1 - dice.mean()


def score_loss(maps: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Sum of focal and Dice loss over all supervised maps, each upsampled to the mask's size.

    Args:
        maps: probability maps (B, 2, G, G).
        mask: (B, H, W), 1 where anomalous.
    """
    total = mask.new_zeros((), dtype=maps[0].dtype)
    for tokens in maps:
        pixels = F.interpolate(tokens, size=mask.shape[-2:], mode="bilinear", align_corners=True)
        total = total + focal_loss(pixels, mask) + dice_loss(pixels[:, 1], mask)
    return total
