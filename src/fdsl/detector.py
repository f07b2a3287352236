"""The detector: backbone, head and scoring choices put together; images and their references in, scores out.

Plain torch, usable without Lightning or Hydra. It knows nothing of datasets: a caller brings preprocessed images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fdsl.backbones import Backbone, Encoding
from fdsl.local_features import LocalFeatures
from fdsl.reference import Encode, ReferenceBank, References, distinct
from fdsl.score_learning import ScoreHead
from fdsl.scoring import AnomalyScore, LayerMaps, blend, fuse, score_maps

METHODS = ("fdsl", "fd")
"""What a detector gives side by side: the configured method, and the training-free discrepancy map."""


@dataclass(frozen=True)
class Detector:
    """FDSL at test time.

    Attributes:
        backbone: frozen.
        head: trained.
        fusion: ``asl`` (as released) or ``fd_asl``.
        fusion_weight: weight of the FD map in ``fd_asl``.
        local: the window branch (LFE); None leaves it out (``winmode=nan``).
        local_weight: weight of the window branch beside the whole image's (``winmode=mul``); at 1 the whole image is
            not looked at (``winmode=onlywin``).
        map_size: side of the anomaly maps, in pixels.
        dtype: that reference tokens are stored as; None keeps the backbone's.
    """

    backbone: Backbone
    head: ScoreHead
    fusion: str = "asl"
    fusion_weight: float = 0.5
    local: LocalFeatures | None = None
    local_weight: float = 0.5
    map_size: int = 240
    dtype: torch.dtype | None = None

    @property
    def sees_whole(self) -> bool:
        """Whether whole images are looked at, and not their windows alone."""
        return self.local is None or self.local_weight < 1

    def encode_references(self, images: Tensor, progress: bool = False, encode: Encode | None = None) -> References:
        """Encode the preprocessed references (k, 3, S, S) of one category; repeated images count once.

        Args:
            images: the references.
            progress: show a progress bar over their windows, whose encoding can take minutes on a CPU.
            encode: the backbone with a memory for whole images; None asks the backbone itself.

        Raises:
            ValueError: if there is none.
            ConfigError: if windows leave cells of the patch grid uncovered.
        """
        images = distinct(images)
        encode = encode or self.backbone
        whole = ReferenceBank.encode(encode, images, dtype=self.dtype) if self.sees_whole else None
        windows = self.local.encode_references(self.backbone, images, self.dtype, progress) if self.local else None
        return References(whole, windows)

    def __call__(self, images: Tensor, references: References) -> dict[str, AnomalyScore]:
        """Score preprocessed images (B, 3, S, S) of one category by every one of :data:`METHODS`.

        The backbone runs in the caller's precision; search, head and maps in fp32, because half precision picks other
        neighbours.

        Raises:
            ValueError: if the references lack a bank that these choices need.
        """
        return self.score(images, [references])[0]

    def score(
        self, images: Tensor, sets: Sequence[References], whole: Encoding | None = None
    ) -> list[dict[str, AnomalyScore]]:
        """Score images of one category against several sets of references, encoding each image once.

        Args:
            images: preprocessed (B, 3, S, S); not looked at where ``whole`` says it all, that is, without windows.
            sets: each as if it were the only one.
            whole: what the backbone makes of the whole images, if that is known.

        Raises:
            ValueError: if references lack a bank that these choices need.
        """
        branches: list[list[LayerMaps]] = []
        if self.sees_whole:
            tokens = (self.backbone(images) if whole is None else whole).tokens
            branches.append([self._whole(tokens, _needed(each.whole, "whole images")) for each in sets])
        if self.local is not None:
            banks = [_needed(each.windows, "windows") for each in sets]
            branches.append(self.local.score(self.backbone, self.head, banks, images))
        with torch.autocast(images.device.type, enabled=False):
            return [{m: self._fused(maps, m) for m in METHODS} for maps in zip(*branches, strict=True)]

    def _whole(self, tokens: Tensor, bank: ReferenceBank) -> LayerMaps:
        with torch.autocast(tokens.device.type, enabled=False):
            found = bank.match(tokens)
            learned = self.head(found.deviation).last.float()
            return LayerMaps(learned, found.discrepancy.view_as(learned))

    def _fused(self, branches: Sequence[LayerMaps], method: str) -> AnomalyScore:
        maps = [b.discrepancy if method == "fd" else fuse(*b, self.fusion, self.fusion_weight) for b in branches]
        scores = [score_maps(m, self.map_size) for m in maps]
        return scores[0] if len(scores) == 1 else blend(scores[0], scores[1], self.local_weight)


def _needed(bank: ReferenceBank | None, of: str) -> ReferenceBank:
    if bank is None:
        raise ValueError(f"these references have no bank of {of}: encode them with this detector")
    return bank
