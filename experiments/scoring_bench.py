"""What ``benchmark_scoring.py`` measures with: timers, random data and counted arithmetic."""

import math
import time
from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fdsl.backbones import Backbone, Encoding
from fdsl.local_features import LocalFeatures
from fdsl.reference import ReferenceBank
from fdsl.score_learning import ScoreHead
from fdsl.scoring import score_maps

MAP_SIZE = 240


class Row(NamedTuple):
    """One measured ratio and its bar."""

    what: str
    measured: float
    bar: float
    at_most: bool
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        return self.measured <= self.bar if self.at_most else self.measured >= self.bar

    def __str__(self) -> str:
        bar = f"{'<=' if self.at_most else '>='} {self.bar:.3g}" if self.bar else "-"
        met = ("yes" if self.met else "NO") if self.bar else ""
        return f"| {self.what} | {self.measured:.3g} | {bar} | {met} | {self.note} |"


class Bench:
    """Timers and random data for one backbone on one device."""

    def __init__(self, backbone: Backbone, image_size: int, device: torch.device, repeats: int) -> None:
        self.backbone, self.size, self.device, self.repeats = backbone.to(device), image_size, device, repeats
        self.head = ScoreHead(len(backbone.blocks), backbone.spec.width).eval().to(device)
        self.grid = image_size // backbone.spec.patch_size

    def seconds(self, *work: Callable[[], object]) -> list[float]:
        """Best of some repeats of each, taken in turn, so that a slow spell of the machine meets all alike."""
        best = [math.inf] * len(work)
        for turn in range(self.repeats + 1):
            for i, each in enumerate(work):
                self.wait()
                start = time.perf_counter()
                each()
                self.wait()
                if turn:  # the first turn warms up
                    best[i] = min(best[i], time.perf_counter() - start)
        return best

    def wait(self) -> None:
        """Let the device finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def images(self, count: int, size: int | None = None) -> Tensor:
        """Random images (count, 3, S, S)."""
        return torch.randn(count, 3, size or self.size, size or self.size, device=self.device)

    def unit(self, *shape: int) -> Tensor:
        """Random unit vectors."""
        return F.normalize(torch.randn(*shape, device=self.device), dim=-1)

    def bank(self, units: int, tokens: int) -> ReferenceBank:
        """A random bank of that many units; what its vectors are costs nothing."""
        spec = self.backbone.spec
        made = self.unit(len(self.backbone.blocks), units, tokens, spec.width)
        return ReferenceBank(made, self.unit(units, spec.feature_width))

    def query(self, units: int, tokens: int) -> Encoding:
        """A random encoding of that many images or windows."""
        return Encoding(*vars(self.bank(units, tokens)).values())

    # Arithmetic in multiplications with addition.

    def backbone_arithmetic(self, images: int, grid: int) -> float:
        """Of encoding images of grid x grid patches: blocks that are run, patch embedding."""
        spec, n = self.backbone.spec, grid * grid + 1
        averaged = getattr(self.backbone, "image_feature_block", None)
        run = spec.depth if averaged is None else max(averaged, *self.backbone.blocks)
        block = 12 * spec.width**2 * n + 2 * n * n * spec.width
        return images * (run * block + 3 * spec.patch_size**2 * spec.width * grid * grid)

    def scoring_arithmetic(self, queries: int, references: int) -> float:
        """Of the exact search of so many query tokens among so many reference tokens, and the head's classifiers."""
        width, layers = self.backbone.spec.width, len(self.backbone.blocks)
        return layers * queries * (references * width + width * 512 + 512 * 128 + 128 * 32 + 32 * 2)

    def score_whole(self, query: Encoding, bank: ReferenceBank) -> Tensor:
        """From tokens to the anomaly map, whole images."""
        return score_maps(self.head(bank.match(query.tokens).deviation).last, MAP_SIZE).map

    def score_windows(self, local: LocalFeatures, query: Encoding, bank: ReferenceBank) -> Tensor:
        """From tokens to the anomaly map, windows of one image of the bench's size."""
        step = local.batch_size
        parts = (
            Encoding(query.tokens[:, i : i + step], query.image_feature[i : i + step])
            for i in range(0, len(query.image_feature), step)
        )
        maps = local.score_windows(self.head, [bank], parts, self.grid)[0]
        return score_maps(self.head.aggregate(maps.learned[:, None]), MAP_SIZE).map

    def with_repeats(self, repeats: int) -> "Bench":
        """The same bench with fewer repeats, for work of many seconds."""
        made = copy(self)
        made.repeats = repeats
        return made
