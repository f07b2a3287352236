"""Area under the per-region-overlap curve (AUPRO), exact.

Pixel AUROC lets one large defect outweigh many small ones. Per-region overlap (PRO) gives every connected
ground-truth region the same weight: at a threshold it is the mean, over regions, of the share of the region's
pixels that the threshold admits. The curve is drawn against the false positive rate of the normal pixels and
integrated up to a limit, 0.3 by convention.

Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, doi:10.1007/s11263-020-01400-4.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from fdsl.metrics.ranking import RankedCounts, is_undefined, ranked_counts

_STRUCTURE_RANK = {4: 1, 8: 2}  # neighbours of a pixel -> how many coordinates may differ from its own


def aupro(maps: Tensor, masks: Tensor, fpr_limit: float = 0.3, connectivity: int = 8) -> float:
    r"""Area under the per-region-overlap curve up to a false positive rate, divided by that rate.

    .. math::
        \frac{1}{l} \int_0^l \mathrm{PRO} \, \mathrm{d}\,\mathrm{FPR}, \qquad
        \mathrm{PRO}(t) = \frac{1}{R} \sum_{r=1}^{R} \frac{|\{p \in r : \mathrm{map}(p) \ge t\}|}{|r|}

    The curve starts at (0, 0), has a point at every distinct score and is linear between them;
    l is ``fpr_limit``.

    Args:
        maps: (n, H, W) floating point anomaly maps, finite; higher means more anomalous.
        masks: (n, H, W) bool or 0/1 ground truth. A region never reaches into another image.
        fpr_limit: upper end of the integral, in (0, 1].
        connectivity: 8 if pixels that touch at a corner are of one region, 4 if only those that share a side.

    Returns:
        AUPRO in [0, 1]; NaN if there is no region or no normal pixel.

    Raises:
        ValueError: if the shapes differ or are not (n, H, W), the input is empty, a map value is not finite,
            a mask value is neither 0 nor 1, or an option is out of range.
    """
    if maps.ndim != 3:
        raise ValueError(f"maps must have shape (n, H, W), got {tuple(maps.shape)}; use `maps[None]` for one image")
    return aupro_from_counts(ranked_counts(maps, masks), masks, fpr_limit, connectivity)


def aupro_from_counts(counts: RankedCounts, masks: Tensor, fpr_limit: float = 0.3, connectivity: int = 8) -> float:
    """:func:`aupro` of maps that are already sorted, so that it can share the sort with the pixel metrics.

    Args:
        counts: ``ranked_counts(maps, masks)``.
        masks: (n, H, W), the same masks.
        fpr_limit: as for :func:`aupro`.
        connectivity: as for :func:`aupro`.

    Returns:
        As :func:`aupro`.

    Raises:
        ValueError: if an option is out of range.
    """
    check_options(fpr_limit, connectivity)
    if is_undefined(counts):
        return float("nan")
    overlap = _region_overlap(counts, label_regions(masks, connectivity))
    fpr = counts.false_positives / counts.false_positives[-1]

    # Cut the curve at the limit: its last segment is the first to reach it, shortened to end there.
    last = int(torch.searchsorted(fpr, fpr_limit))
    share = (fpr_limit - fpr[last - 1]) / (fpr[last] - fpr[last - 1])
    end = torch.lerp(overlap[last - 1], overlap[last], share)
    x = torch.cat([fpr[:last], fpr.new_tensor([fpr_limit])])
    y = torch.cat([overlap[:last], end[None]])
    return min(float(torch.trapezoid(y, x)) / fpr_limit, 1.0)  # rounding may leave the mean a hair above 1


def label_regions(masks: Tensor, connectivity: int = 8) -> Tensor:
    """Number the connected ground-truth regions of all images.

    Args:
        masks: (n, H, W) bool or 0/1.
        connectivity: 4 or 8.

    Returns:
        (n, H, W) int32 on the CPU: 0 for normal pixels, then 1 to R through all images.
    """
    # Neighbours in the middle plane only: nothing connects one image with the next.
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = ndimage.generate_binary_structure(2, _STRUCTURE_RANK[connectivity])
    regions, _ = ndimage.label(masks.cpu().numpy(), structure)
    return torch.from_numpy(regions)


def check_options(fpr_limit: float, connectivity: int) -> None:
    """Refuse options out of range.

    Raises:
        ValueError: if ``fpr_limit`` is not in (0, 1] or ``connectivity`` is not 4 or 8.
    """
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must be in (0, 1], got {fpr_limit}; 0.3 is the convention")
    if connectivity not in _STRUCTURE_RANK:
        raise ValueError(f"connectivity must be 4 (sides) or 8 (sides and corners), got {connectivity}")


def _region_overlap(counts: RankedCounts, regions: Tensor) -> Tensor:
    """Mean share of a region that each threshold admits: (K,) float64, ascending from 0 to 1."""
    region = regions.flatten()[counts.ranked_positives.cpu()].long()  # P
    sizes = region.bincount()  # R + 1, the first is 0
    weight = 1 / (sizes[region].double() * (len(sizes) - 1))  # P
    overlap = F.pad(weight.cumsum(0), (1, 0))  # P + 1
    return overlap.to(counts.true_positives.device)[counts.true_positives.long()]
