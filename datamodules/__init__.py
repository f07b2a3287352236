"""Datasets as LightningDataModules: MVTec AD, VisA and a synthetic pair in both layouts."""
