"""Frozen backbones: images in, unit-length patch tokens of a few blocks and one image feature out."""

from fdsl.backbones.base import Backbone, BackboneSpec, Encoding, Weights
from fdsl.backbones.checks import check_blocks, check_image_size
from fdsl.backbones.openclip import OpenCLIPBackbone
from fdsl.backbones.pypi_vit import PyPIViTSmall
from fdsl.backbones.random_vit import RandomViT
from fdsl.backbones.timm_dino import TimmBackbone
from fdsl.backbones.weights import WeightsError, WeightsNotFoundError

__all__ = [
    "Backbone",
    "BackboneSpec",
    "Encoding",
    "OpenCLIPBackbone",
    "PyPIViTSmall",
    "RandomViT",
    "TimmBackbone",
    "Weights",
    "WeightsError",
    "WeightsNotFoundError",
    "check_blocks",
    "check_image_size",
]
