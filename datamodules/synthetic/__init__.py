"""Synthetic datasets: rendered products with rendered defects, in the layouts of MVTec AD and VisA."""

from datamodules.synthetic.catalogue import MVTEC_LIKE, VISA_LIKE
from datamodules.synthetic.writer import write_mvtec, write_visa

__all__ = ["MVTEC_LIKE", "VISA_LIKE", "write_mvtec", "write_visa"]
