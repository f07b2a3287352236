"""The metrics of one class as torchmetrics objects; the maths is in the modules beside this one.

Both keep everything they see, on the CPU, because the metrics are exact: none of them is a mean over batches.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from fdsl.metrics.aupro import aupro_from_counts, check_options
from fdsl.metrics.ranking import binary, ranked_counts, ranking_metrics, summarise


class _ExactMetric(Metric):
    """A metric of list states that live on the CPU and are joined across processes whatever their counts."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__(compute_on_cpu=True, dist_sync_fn=gather_nonempty)

    def _joined(self, state: list[Tensor] | Tensor) -> Tensor:
        """One tensor of all images; after a sync torchmetrics has joined it already."""
        if len(state) == 0:
            raise ValueError(
                f"{type(self).__name__} has seen no image: call update before compute, and check that the "
                "class has test images"
            )
        return dim_zero_cat(state)


class ImageMetrics(_ExactMetric):
    """Image-level AUROC, best F1 and average precision of one class.

    ``update(scores, labels)`` takes (B,) scores, higher more anomalous, and (B,) labels, 0 or 1.
    ``compute()`` returns ``{"image_auroc", "image_f1max", "image_ap"}`` as floats in [0, 1], NaN if the
    images are all normal or all anomalous.
    """

    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            scores: (B,) floating point.
            labels: (B,) bool or 0/1.

        Raises:
            ValueError: if a shape is wrong or a label is neither 0 nor 1.
        """
        if scores.ndim != 1 or scores.shape != labels.shape:
            raise ValueError(
                "image scores and labels must both have shape (B,), one of each per image, got "
                f"{tuple(scores.shape)} and {tuple(labels.shape)}"
            )
        self.scores.append(scores.detach().double())
        self.labels.append(binary(labels))

    def compute(self) -> dict[str, float]:
        """The metrics of all images so far, of all processes.

        Raises:
            ValueError: if there is no image or a score is not finite.
        """
        metrics = ranking_metrics(self._joined(self.scores), self._joined(self.labels))
        return {f"image_{name}": value for name, value in metrics.items()}


class PixelMetrics(_ExactMetric):
    """Pixel-level AUROC, best F1, average precision and AUPRO of one class, from a single sort.

    ``update(maps, masks)`` takes (B, H, W) anomaly maps, kept as float32, and (B, H, W) masks, 0 or 1.
    ``compute()`` returns ``{"pixel_auroc", "pixel_f1max", "pixel_ap", "pixel_aupro"}`` as floats in [0, 1],
    NaN if the pixels are all normal or all anomalous.

    Args:
        fpr_limit: upper end of the AUPRO integral, in (0, 1].
        connectivity: 4 or 8, which neighbours join a ground-truth region.

    Raises:
        ValueError: if an option is out of range.
    """

    maps: list[Tensor]
    masks: list[Tensor]

    def __init__(self, fpr_limit: float = 0.3, connectivity: int = 8) -> None:
        check_options(fpr_limit, connectivity)
        super().__init__()
        self.fpr_limit = fpr_limit
        self.connectivity = connectivity
        self.add_state("maps", [], dist_reduce_fx="cat")
        self.add_state("masks", [], dist_reduce_fx="cat")

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Add a batch.

        Args:
            maps: (B, H, W) floating point; H and W are the same in every batch.
            masks: (B, H, W) bool or 0/1.

        Raises:
            ValueError: if a shape is wrong or a mask value is neither 0 nor 1.
        """
        if maps.ndim != 3 or maps.shape != masks.shape:
            raise ValueError(
                "maps and masks must both have shape (B, H, W), got "
                f"{tuple(maps.shape)} and {tuple(masks.shape)}; drop a channel axis with `squeeze(1)`"
            )
        if self.maps and maps.shape[1:] != self.maps[0].shape[1:]:
            raise ValueError(
                f"maps of {tuple(maps.shape[1:])} follow maps of {tuple(self.maps[0].shape[1:])}; resize all "
                "images of a class to one size"
            )
        self.maps.append(maps.detach().float())
        self.masks.append(binary(masks))

    def compute(self) -> dict[str, float]:
        """The metrics of all pixels so far, of all processes.

        Raises:
            ValueError: if there is no image or a map value is not finite.
        """
        masks = self._joined(self.masks)
        counts = ranked_counts(self._joined(self.maps), masks)
        metrics = {f"pixel_{name}": value for name, value in summarise(counts).items()}
        return metrics | {"pixel_aupro": aupro_from_counts(counts, masks, self.fpr_limit, self.connectivity)}


def gather_nonempty(rows: Tensor, group: Any = None) -> list[Tensor]:
    """Collect one tensor from every process, leaving out those that saw no image.

    The gather of torchmetrics needs one type and number of dimensions everywhere, yet for a process without
    an update it sends a (0,) float32 tensor whatever the state holds; and NCCL refuses the CPU tensors that
    ``compute_on_cpu`` leaves. Gathering objects carries shape and type along and works with both backends.

    Args:
        rows: (n, ...) this process's images; n may differ between processes.
        group: process group, the default group if None.

    Returns:
        The non-empty tensors by rank, on the CPU; a single empty tensor if no process saw an image.
    """
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, rows.cpu(), group=group)
    return [each for each in gathered if each.numel() > 0] or [torch.empty(0)]
