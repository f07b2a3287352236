"""The test of one category: collects what is scored image by image, and turns it into metrics once.

One category is held in memory at a time. Image scores wait for the end, since the transductive one needs them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fdsl.metrics import PixelMetrics, ranking_metrics
from fdsl.scoring import AnomalyScore, image_score

T = TypeVar("T")
Metrics = dict[str, float]


@dataclass(frozen=True)
class CategoryResult:
    """One category's figures.

    Attributes:
        metrics: of each method, by the names of the paper's table, 0 to 1.
        paths: tested images.
        labels: (n,) int64.
        image_scores: of each method, (n,) float64.
        hidden_defects: defective images whose mask is empty at the map's size: cropped away, or too small.
    """

    metrics: dict[str, Metrics]
    paths: list[str]
    labels: Tensor
    image_scores: dict[str, Tensor]
    hidden_defects: int


class CategoryTest:
    """Accumulates the scores of one category's test images, for one or more methods side by side.

    Args:
        methods: names of the methods compared on the same images and references.
        score_mode: how image scores are made, see :func:`fdsl.scoring.image_score`.
    """

    def __init__(self, methods: Sequence[str], score_mode: str) -> None:
        self.score_mode = score_mode
        self.paths: list[str] = []
        self.labels: list[int] = []
        self.masks: list[Tensor] = []
        self.hidden_defects = 0
        self.maps: dict[str, list[Tensor]] = {method: [] for method in methods}
        self._parts: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
        self._pixels = {method: PixelMetrics() for method in methods}

    def update(
        self, scores: Mapping[str, AnomalyScore], paths: list[str], labels: Tensor, masks: Tensor, visible: Tensor
    ) -> None:
        """Take in a batch.

        Args:
            scores: of each method, maps (B, M, M) and peaks (B,).
            paths: B image paths.
            labels: (B,), 1 where defective.
            masks: (B, M, M) uint8.
            visible: (B,), False where an image is labelled defective, but its mask is empty after cropping.
        """
        masks = masks.cpu()
        self.paths += paths
        self.labels += labels.tolist()
        self.masks.append(masks)
        self.hidden_defects += int((~visible).sum())
        for method, score in scores.items():
            maps = score.map.cpu()
            s1, s2 = score.peak.double().tolist(), maps.flatten(1).amax(dim=1).double().tolist()
            self._parts[method] += list(zip(s1, s2, strict=True))
            self.maps[method].append(maps)
            self._pixels[method].update(maps, masks)

    def finish(self) -> CategoryResult:
        """Compute the figures over all processes' images."""
        paths, labels, hidden = (
            _gathered(self.paths),
            torch.tensor(_gathered(self.labels)),
            _gathered([self.hidden_defects]),
        )
        scores: dict[str, Tensor] = {}
        metrics: dict[str, Metrics] = {}
        for method, parts in self._parts.items():
            s1, s2 = torch.tensor(_gathered(parts), dtype=torch.float64).unbind(dim=1)
            scores[method] = image_score(s1, s2, self.score_mode)
            of_images = {f"image_{name}": value for name, value in ranking_metrics(scores[method], labels).items()}
            metrics[method] = {**of_images, **self._pixels[method].compute()}
        return CategoryResult(metrics, paths, labels, scores, sum(hidden))


def _gathered(mine: list[T]) -> list[T]:
    """Join the lists of all processes, in the order of their ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return mine
    parts: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, mine)
    return [item for part in parts for item in part]
