"""FD, feature discrepancy: what differs between a query token and the reference token nearest to it.

The maths of the paper's "feature discrepancy" section, as pure functions on unit-length patch tokens. It knows
nothing of where tokens come from, nor of what is learned on top.
"""

from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

MATCH_BYTES = {"cpu": 16 * 2**20, "cuda": 512 * 2**20}
"""Default bound on the similarities that a search holds at one time, by kind of device: pieces that stay in a
processor's cache, and pieces that keep a graphics card busy."""

BLOCK = 128
"""Similarities whose maximum is taken first, before asking where it lies: finding indices costs more than maxima."""


class Discrepancy(NamedTuple):
    """Result of matching query tokens with a reference bank.

    Attributes:
        deviation: |query - nearest reference|, elementwise, (L, B, N, C).
        discrepancy: 1 - cosine similarity to the nearest reference, (L, B, N), in [0, 2].
    """

    deviation: Tensor
    discrepancy: Tensor


def nearest(query: Tensor, bank: Tensor, max_bytes: int | None = None) -> tuple[Tensor, Tensor]:
    """Find the exact nearest bank token, by inner product, of every query token.

    The similarity matrix is built in pieces of at most ``max_bytes``. Of equally near tokens the one with the
    lowest index is taken, in every piece and across pieces, so that the piece size decides nothing but how the products
    are rounded.

    Args:
        query: unit-length tokens (Q, C), or W groups of them (W, Q, C).
        bank: unit-length tokens (R, C), or one bank for each group (W, R, C), R >= 1; converted to the query's dtype
            piece by piece.
        max_bytes: bound on the size of one piece of the (W, Q, R) matrix, and on a converted piece of the bank; None
            takes :data:`MATCH_BYTES`.

    Returns:
        similarity (Q,) or (W, Q), and index of the same shape, int64 into the (group's) bank.

    Raises:
        ValueError: if the bank is empty, or the widths or numbers of groups differ.
    """
    if query.ndim not in (2, 3) or query.ndim != bank.ndim or query.shape[:-2] != bank.shape[:-2]:
        raise ValueError(f"query {tuple(query.shape)} and bank {tuple(bank.shape)} are not both (Q, C) or (W, Q, C)")
    if bank.shape[-2] == 0:
        raise ValueError(f"the reference bank must have R >= 1 tokens, got {tuple(bank.shape)}")
    if query.shape[-1] != bank.shape[-1]:
        raise ValueError(f"query {tuple(query.shape)} and bank {tuple(bank.shape)} differ in token width C")
    if query.ndim == 2:
        similarity, index = nearest(query[None], bank[None], max_bytes)
        return similarity[0], index[0]
    groups, queries, references = query.shape[0], query.shape[1], bank.shape[1]
    cells = max(1, budget(query, max_bytes) // query.element_size())
    columns = max(isqrt(cells), cells // max(1, queries))
    columns = min(references, columns, max(1, cells // query.shape[2]))  # the bank's piece may have to be converted
    rows = max(1, min(queries, cells // columns))
    layers = max(1, cells // (rows * columns))
    similarity = query.new_full((groups, queries), -torch.inf)
    index = torch.zeros(groups, queries, dtype=torch.int64, device=query.device)
    for g in range(0, groups, layers):
        for r in range(0, references, columns):
            piece = bank[g : g + layers, r : r + columns].to(query.dtype).transpose(1, 2)  # g C r
            for q in range(0, queries, rows):
                here = (slice(g, g + layers), slice(q, q + rows))
                value, at = _first_maximum(query[here] @ piece)
                index[here] = torch.where(value > similarity[here], at + r, index[here])  # a tie stays with the lower
                similarity[here] = torch.maximum(value, similarity[here])
    return similarity, index


def budget(query: Tensor, max_bytes: int | None) -> int:
    """Return the bound on a search's working memory, in bytes: what was asked for, or its device's default."""
    return MATCH_BYTES.get(query.device.type, MATCH_BYTES["cpu"]) if max_bytes is None else max_bytes


def _first_maximum(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's maximum and the first place where it stands, (..., N) -> (...) and (...) int64."""
    size = matrix.shape[-1]
    whole = size - size % BLOCK
    if whole <= BLOCK:
        found: tuple[Tensor, Tensor] = matrix.max(dim=-1)
        return found
    blocks = matrix[..., :whole].view(*matrix.shape[:-1], -1, BLOCK)
    value, block = blocks.amax(dim=-1).max(dim=-1)
    inside = blocks.take_along_dim(block[..., None, None], dim=-2).argmax(dim=-1)[..., 0]
    index = block * BLOCK + inside
    if whole < size:
        rest, at = matrix[..., whole:].max(dim=-1)
        index = torch.where(rest > value, at + whole, index)
        value = torch.maximum(rest, value)
    return value, index


def feature_discrepancy(tokens: Tensor, bank: Tensor, max_bytes: int | None = None) -> Discrepancy:
    """Match query tokens with a reference bank, each layer with its own.

    Args:
        tokens: unit-length query tokens (L, B, N, C).
        bank: unit-length reference tokens (L, R, C).
        max_bytes: bound on the similarity matrix held at one time, see :func:`nearest`.

    Returns:
        deviation (L, B, N, C) and discrepancy (L, B, N).

    Raises:
        ValueError: if the number of layers or the token widths differ, or the bank is empty.
    """
    if tokens.ndim != 4 or bank.ndim != 3 or tokens.shape[0] != bank.shape[0]:
        raise ValueError(
            f"tokens must be (L, B, N, C) and the bank (L, R, C) with the same L, "
            f"got {tuple(tokens.shape)} and {tuple(bank.shape)}"
        )
    layers, batch, count, width = tokens.shape
    deviation = torch.empty_like(tokens)
    discrepancy = tokens.new_empty(layers, batch, count)
    for layer in range(layers):
        query = tokens[layer].reshape(-1, width)  # B*N C
        similarity, index = nearest(query, bank[layer], max_bytes)
        deviation[layer] = (query - bank[layer, index].to(query.dtype)).abs_().view(batch, count, width)
        discrepancy[layer] = (1 - similarity).view(batch, count)
    return Discrepancy(deviation, discrepancy)


def feature_discrepancy_within(
    tokens: Tensor, bank: Tensor, units: Tensor, max_bytes: int | None = None
) -> Discrepancy:
    """Match the tokens of each query window with those of its own few reference windows only.

    Args:
        tokens: unit-length query tokens (L, W, N, C).
        bank: unit-length tokens of U reference windows (L, U, M, C).
        units: which reference windows each query window searches, (W, m) int64, in ascending order if ties are to go
            to the lowest index.
        max_bytes: bound on the similarity matrix, and on the reference tokens gathered, at one time (but a window's own
            are gathered together).

    Returns:
        deviation (L, W, N, C) and discrepancy (L, W, N).
    """
    layers, windows, _, width = tokens.shape
    deviation = torch.empty_like(tokens)
    discrepancy = tokens.new_empty(tokens.shape[:3])
    step = max(1, budget(tokens, max_bytes) // (units.shape[1] * bank.shape[2] * width * tokens.element_size()))
    for layer in range(layers):
        for w in range(0, windows, step):
            query = tokens[layer, w : w + step]
            own = bank[layer, units[w : w + step]].flatten(1, 2).to(query.dtype)  # w m*M C
            similarity, index = nearest(query, own, max_bytes)  # w N
            index += torch.arange(0, own.shape[0] * own.shape[1], own.shape[1], device=index.device)[:, None]
            matched = own.flatten(0, 1)[index.flatten()].view_as(query)  # w N C
            deviation[layer, w : w + step] = (query - matched).abs_()
            discrepancy[layer, w : w + step] = 1 - similarity
    return Discrepancy(deviation, discrepancy)
