"""FD, feature discrepancy: what differs between a query token and the reference token nearest to it.

The maths of the paper's "feature discrepancy" section, as pure functions on unit-length patch tokens. It knows
nothing of where tokens come from, nor of what is learned on top.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MATCH_BYTES = 64 * 2**20
"""Default bound on the similarity matrix that a search holds at one time."""


class Discrepancy(NamedTuple):
    """Result of matching query tokens with a reference bank.

    Attributes:
        deviation: |query - nearest reference|, elementwise, (L, B, N, C).
        discrepancy: 1 - cosine similarity to the nearest reference, (L, B, N), in [0, 2].
    """

    deviation: Tensor
    discrepancy: Tensor


def nearest(query: Tensor, bank: Tensor, max_bytes: int = MATCH_BYTES) -> tuple[Tensor, Tensor]:
    """Find the exact nearest bank token, by inner product, of every query token.

    The similarity matrix is built in pieces of at most ``max_bytes``. Of equally near tokens the one with the
    lowest index is taken, in every piece and across pieces, so that the piece size decides nothing.

    Args:
        query: unit-length tokens (Q, C).
        bank: unit-length tokens (R, C), R >= 1, of the same dtype and device.
        max_bytes: bound on the size of one piece of the (Q, R) matrix.

    Returns:
        similarity (Q,) and index (Q,) int64 into the bank.

    Raises:
        ValueError: if the bank is empty or the widths differ.
    """
    if bank.ndim != 2 or bank.shape[0] == 0:
        raise ValueError(f"the reference bank must be (R, C) with R >= 1, got {tuple(bank.shape)}")
    if query.ndim != 2 or query.shape[1] != bank.shape[1]:
        raise ValueError(f"query {tuple(query.shape)} and bank {tuple(bank.shape)} differ in token width C")
    cells = max(1, max_bytes // query.element_size())
    columns = min(bank.shape[0], cells)
    rows = max(1, cells // columns)
    similarity = query.new_empty(query.shape[0])
    index = torch.empty(query.shape[0], dtype=torch.int64, device=query.device)
    for q in range(0, query.shape[0], rows):
        part = query[q : q + rows]
        best, where = (part @ bank[:columns].T).max(dim=1)  # (rows,), the first of equal maxima
        for r in range(columns, bank.shape[0], columns):
            value, at = (part @ bank[r : r + columns].T).max(dim=1)
            where = torch.where(value > best, at + r, where)  # strictly: a tie stays with the lower index
            best = torch.maximum(best, value)
        similarity[q : q + rows] = best
        index[q : q + rows] = where
    return similarity, index


def feature_discrepancy(tokens: Tensor, bank: Tensor, max_bytes: int = MATCH_BYTES) -> Discrepancy:
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
        similarity, index = nearest(query, bank[layer].to(query.dtype), max_bytes)
        deviation[layer] = (query - bank[layer, index]).abs_().view(batch, count, width)
        discrepancy[layer] = (1 - similarity).view(batch, count)
    return Discrepancy(deviation, discrepancy)
