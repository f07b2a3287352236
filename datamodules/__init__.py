"""Datasets as LightningDataModules: MVTec AD, VisA and a synthetic pair in both layouts."""

from datamodules.base import FewShotDataModule
from datamodules.mvtec import MVTecDataModule, read_mvtec
from datamodules.samples import DatasetError, Reader, Sample
from datamodules.synthetic_module import SyntheticDataModule
from datamodules.visa import VisADataModule, read_visa

READERS: dict[str, Reader] = {"mvtec": read_mvtec, "visa": read_visa}

__all__ = [
    "READERS",
    "DatasetError",
    "FewShotDataModule",
    "MVTecDataModule",
    "Reader",
    "Sample",
    "SyntheticDataModule",
    "VisADataModule",
    "read_mvtec",
    "read_visa",
]
