"""LFE, local-enhanced features: the image seen through many small windows, each encoded alone (test time only).

A defect too small to change a whole image's tokens fills a good part of a window. Windows of query and references are
cut, encoded and matched alike; the windows' maps are stitched together, and NAM runs once, on the stitched map.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fdsl.backbones import Backbone, Encoding
from fdsl.errors import ConfigError
from fdsl.reference import ReferenceBank
from fdsl.score_learning import ScoreHead
from fdsl.scoring import LayerMaps
from fdsl.windows import check_windows, cut_windows, stitch_windows, window_boxes

SEARCHES = ("full", "union", "own")


@dataclass(frozen=True)
class LocalFeatures:
    """LFE with one choice of windows and of memory.

    Attributes:
        size: side of a window, in patches.
        stride: step between windows, in patches.
        batch_size: windows encoded at one time; bounds the memory, changes no score.
        search: which reference windows a query window is matched with. ``full``: all of them. ``union``: those that
            any window of the same image picks by image feature, as published. ``own``: those it picks itself.
        top_m: how many reference windows a query window picks; ``full`` picks none.
    """

    size: int = 13
    stride: int = 2
    batch_size: int = 32
    search: str = "own"
    top_m: int | None = 1

    def __post_init__(self) -> None:
        if self.search not in SEARCHES:
            raise ConfigError(f"search={self.search!r}: must be one of {', '.join(SEARCHES)}")
        picks = {} if self.search == "full" else {"top_m": self.top_m or 0}
        for key, value in {"size": self.size, "stride": self.stride, "batch_size": self.batch_size, **picks}.items():
            if value < 1:
                raise ConfigError(f"{key}={value}: must be at least 1")

    @property
    def geometry(self) -> dict[str, int]:
        """What decides which windows there are."""
        return {"win_size": self.size, "win_stride": self.stride}

    def encode_references(
        self, backbone: Backbone, images: Tensor, dtype: torch.dtype | None = None, progress: bool = False
    ) -> ReferenceBank:
        """Encode the windows of reference images (k, 3, S, S) into one bank of k * W units, stored as ``dtype``.

        Raises:
            ConfigError: if the windows leave cells of the patch grid uncovered.
        """
        grid = _grid(backbone, images)
        check_windows(grid, self.size, self.stride)
        shown = tqdm(images, desc="windows of references", leave=False, disable=not progress)
        batches = chain.from_iterable(self.cut(backbone, image) for image in shown)
        count = len(window_boxes(grid, self.size, self.stride))
        return ReferenceBank.collect(backbone, batches, len(images) * count, dtype)

    def score(
        self, backbone: Backbone, head: ScoreHead, banks: Sequence[ReferenceBank], images: Tensor
    ) -> list[LayerMaps]:
        """Score images (B, 3, S, S), one after the other, by their windows, which are encoded once for all banks.

        Args:
            backbone: encodes windows in the caller's precision; all that follows runs in fp32.
            head: classifies each window's deviations; its NAM runs on the stitched maps.
            banks: of the references' windows, one for each set of references.
            images: preprocessed.

        Returns:
            for each bank stitched maps, (L, B, G, G) each.

        Raises:
            ConfigError: if the windows leave cells of the patch grid uncovered.
        """
        grid = _grid(backbone, images)
        scored = [self.score_windows(head, banks, map(backbone, self.cut(backbone, image)), grid) for image in images]
        made: list[LayerMaps] = []
        for of_images in zip(*scored, strict=True):
            learned, discrepancy = (torch.stack(maps, dim=1) for maps in zip(*of_images, strict=True))
            with torch.autocast(images.device.type, enabled=False):
                made.append(LayerMaps(head.aggregate(learned), discrepancy))
        return made

    def score_windows(
        self, head: ScoreHead, banks: Sequence[ReferenceBank], encoded: Iterable[Encoding], grid: int
    ) -> list[LayerMaps]:
        """Score one image by its encoded windows.

        Args:
            head: see :meth:`score`.
            banks: see :meth:`score`.
            encoded: all windows of the image, row-major, in batches.
            grid: patches a side of the image, G.

        Returns:
            for each bank stitched maps before NAM, (L, G, G) each.
        """
        if self.search == "union":
            encoded = list(encoded)  # the union is known only once every window has picked
            features = torch.cat([part.image_feature for part in encoded])
            banks = [bank.union(features, self.top_m or 0) for bank in banks]
        found: list[list[LayerMaps]] = [[] for _ in banks]
        for part in encoded:
            for maps, bank in zip(found, banks, strict=True):
                maps.append(self._matched(head, bank, part))
        return [LayerMaps(*(self._stitched(maps, grid) for maps in zip(*parts, strict=True))) for parts in found]

    def _matched(self, head: ScoreHead, bank: ReferenceBank, part: Encoding) -> LayerMaps:
        """Match a batch of windows: their maps (L, b, N), not stitched yet."""
        with torch.autocast(part.tokens.device.type, enabled=False):
            found = bank.match_own(part, self.top_m or 0) if self.search == "own" else bank.match(part.tokens)
            return LayerMaps(head.classify(found.deviation)[..., 1].float(), found.discrepancy)

    def cut(self, backbone: Backbone, image: Tensor) -> Iterator[Tensor]:
        """Cut one image (3, S, S) into its windows, row-major, in batches (b, 3, s, s) that are made one at a time.

        Raises:
            ConfigError: if the windows leave cells of the patch grid uncovered.
        """
        patch = backbone.spec.patch_size
        check_windows(_grid(backbone, image), self.size, self.stride)
        return cut_windows(image, self.size * patch, self.stride * patch, self.batch_size)

    def _stitched(self, parts: Sequence[Tensor], grid: int) -> Tensor:
        return stitch_windows(torch.cat(list(parts), dim=1), grid, self.size, self.stride)  # L G G


def _grid(backbone: Backbone, images: Tensor) -> int:
    return images.shape[-1] // backbone.spec.patch_size
