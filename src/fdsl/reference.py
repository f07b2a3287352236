"""Reference bank: the patch tokens of defect-free references, and the ways to search it.

A unit of a bank is what was encoded alone: a whole reference image, or one local window of it. The image-feature index
memory searches few units instead of all: those whose image feature is most similar to the query's.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from fdsl.backbones import Encoding
from fdsl.discrepancy import Discrepancy, feature_discrepancy, feature_discrepancy_within

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What reference tokens may be stored as."""


class Shots(NamedTuple):
    """One few-shot setting: how many references a category has, and which draw of them."""

    kshots: int
    seed: int

    @property
    def name(self) -> str:
        """For folders and logs."""
        return f"{self.kshots}shot-seed{self.seed}"


Encode = Callable[[Tensor], Encoding]
"""A backbone, or one that remembers."""


@dataclass(frozen=True)
class ReferenceBank:
    """Tokens of U reference images or windows, ready to be matched against.

    Attributes:
        tokens: unit-length reference tokens (L, U, N, C); half precision is storage only, the search runs in fp32.
        image_feature: unit-length (U, D), fp32.
    """

    tokens: Tensor
    image_feature: Tensor

    @classmethod
    def encode(
        cls,
        encode: Encode,
        images: Tensor,
        batch_size: int = 8,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Encode preprocessed reference images (U, 3, S, S), ``batch_size`` at a time, stored as ``dtype``.

        Raises:
            ValueError: if there is no reference.
        """
        return cls.collect(encode, torch.split(images, batch_size), len(images), dtype)

    @classmethod
    def collect(cls, encode: Encode, batches: Iterable[Tensor], units: int, dtype: torch.dtype | None = None) -> Self:
        """Encode ``units`` images that come in batches (b, 3, S, S).

        Raises:
            ValueError: if there is none.
        """
        if units == 0:
            raise ValueError("a reference bank needs at least one reference image")
        tokens: Tensor | None = None
        features: list[Tensor] = []
        start = 0
        for batch in batches:
            part = encode(batch)
            if tokens is None:  # made whole at once: joining parts would hold the bank twice
                layers, _, count, width = part.tokens.shape
                tokens = part.tokens.new_empty(layers, units, count, width, dtype=dtype or part.tokens.dtype)
            tokens[:, start : start + len(batch)] = part.tokens
            features.append(part.image_feature.float())
            start += len(batch)
        assert tokens is not None  # for the type checker
        return cls(tokens, torch.cat(features))

    def match(self, tokens: Tensor, max_bytes: int | None = None) -> Discrepancy:
        """Match query tokens (L, B, N, C) with the whole bank, see :func:`fdsl.discrepancy.feature_discrepancy`."""
        return feature_discrepancy(tokens.float(), self.tokens.flatten(1, 2), max_bytes)

    def match_own(self, query: Encoding, top_m: int, max_bytes: int | None = None) -> Discrepancy:
        """Match each query with its own ``top_m`` nearest units only; with all of them if there are no more."""
        if top_m >= len(self.image_feature):
            return self.match(query.tokens, max_bytes)
        units = self.nearest_units(query.image_feature, top_m)
        return feature_discrepancy_within(query.tokens.float(), self.tokens, units, max_bytes)

    def nearest_units(self, image_feature: Tensor, top_m: int) -> Tensor:
        """Return the units most similar in image feature, (B, D) -> (B, min(top_m, U)) int64, ascending.

        Of equally similar units those of lowest index are taken.
        """
        with torch.autocast(image_feature.device.type, enabled=False):
            similarity = image_feature.float() @ self.image_feature.T  # B U
        order = similarity.sort(dim=1, descending=True, stable=True).indices
        return order[:, :top_m].sort(dim=1).values

    def union(self, image_feature: Tensor, top_m: int) -> "ReferenceBank":
        """Return the bank of all units that any of the queries (B, D) picks, each of them once."""
        units = torch.unique(self.nearest_units(image_feature, top_m))  # sorted
        return ReferenceBank(self.tokens[:, units], self.image_feature[units])

    def first(self, units: int) -> "ReferenceBank":
        """Return the bank of the first ``units`` alone, which shares its memory with this one."""
        return ReferenceBank(self.tokens[:, :units], self.image_feature[:units])

    def to(self, device: torch.device) -> "ReferenceBank":
        """Return the bank on another device."""
        return replace(self, tokens=self.tokens.to(device), image_feature=self.image_feature.to(device))

    @property
    def nbytes(self) -> int:
        """Size of the bank in bytes."""
        return sum(t.numel() * t.element_size() for t in (self.tokens, self.image_feature))


class References(NamedTuple):
    """The k references of one category, encoded.

    Attributes:
        whole: the bank of whole images; None where only windows are looked at.
        windows: the bank of their windows; None without LFE.
    """

    whole: ReferenceBank | None
    windows: ReferenceBank | None

    def to(self, device: torch.device) -> "References":
        """Return both banks on another device."""
        return References(*(None if bank is None else bank.to(device) for bank in self))

    def first(self, references: int, of: int) -> "References":
        """Return the banks of the first ``references`` of the ``of`` that these were made from."""
        made = [None if b is None else b.first(len(b.image_feature) * references // of) for b in self]
        return References(*made)

    @property
    def nbytes(self) -> int:
        """Size of both banks in bytes."""
        return sum(bank.nbytes for bank in self if bank is not None)


def distinct(images: Tensor) -> Tensor:
    """Drop images that repeat an earlier one exactly: they add nothing to a bank, (k, 3, S, S) -> (d, 3, S, S)."""
    first = [i for i in range(len(images)) if not any(torch.equal(images[i], images[j]) for j in range(i))]
    return images if len(first) == len(images) else images[first]
