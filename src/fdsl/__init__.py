"""Few-shot anomaly detection and segmentation by feature discrepancy guided score learning (FDSL)."""

__version__ = "0.1.0"
