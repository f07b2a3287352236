"""Exact metrics of anomaly detection: image-level and pixel-level ranking metrics, and AUPRO."""

from fdsl.metrics.anomaly import ImageMetrics, PixelMetrics
from fdsl.metrics.aupro import aupro
from fdsl.metrics.ranking import (
    RankedCounts,
    auroc,
    average_precision,
    f1_max,
    ranked_counts,
    ranking_metrics,
)

__all__ = [
    "ImageMetrics",
    "PixelMetrics",
    "RankedCounts",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "ranked_counts",
    "ranking_metrics",
]
