import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fdsl.discrepancy import _first_maximum, feature_discrepancy, feature_discrepancy_within, nearest


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 8), st.integers(4, 4000), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_nearest_is_that_of_a_plain_search(q: int, r: int, c: int, max_bytes: int, seed: int):
    query, bank = unit(q, c, seed=seed), unit(r, c, seed=seed + 1)
    distance = ((query[:, None].double() - bank.double()) ** 2).sum(-1)
    similarity, index = nearest(query, bank, max_bytes)
    chosen = distance[torch.arange(q), index]
    torch.testing.assert_close(chosen, distance.amin(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(similarity.double(), 1 - distance.amin(1) / 2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("max_bytes", [4, 64, 1000, 2**20])
def test_of_equally_near_references_the_first_is_taken(max_bytes: int):
    bank = torch.eye(4).repeat(3, 1)  # every token three times
    _, index = nearest(torch.eye(4), bank, max_bytes)
    assert index.tolist() == [0, 1, 2, 3]


@given(st.integers(1, 3), st.integers(1, 30), st.integers(1, 300), st.integers(4, 9000), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_pieces_decide_nothing(groups: int, q: int, r: int, max_bytes: int, seed: int):
    """Small whole numbers multiply without rounding, so ties are exact: each is the first's, however it is cut."""
    generator = torch.Generator().manual_seed(seed)
    query, bank = (torch.randint(-2, 3, (groups, n, 3), generator=generator).float() for n in (q, r))
    similarity, index = nearest(query, bank, max_bytes)
    for g in range(groups):
        for row, value, at in zip(
            (query[g] @ bank[g].T).tolist(), similarity[g].tolist(), index[g].tolist(), strict=True
        ):
            assert (value, at) == (max(row), row.index(max(row)))


@pytest.mark.parametrize("shape", [(50, 70), (3, 50, 70)])
def test_no_piece_exceeds_the_budget(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    largest = 0
    product = torch.Tensor.__matmul__

    def watched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        made = product(a, b)
        largest = max(largest, made.numel() * made.element_size())
        return made

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    *groups, q, r = shape
    nearest(unit(*groups, q, 8), unit(*groups, r, 8), max_bytes=1000)
    assert 500 < largest <= 1000


def test_deviation_and_discrepancy_by_hand():
    bank = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # L=1 R=2 C=2
    tokens = torch.tensor([[[[0.6, 0.8], [1.0, 0.0]]]])  # L=1 B=1 N=2 C=2
    found = feature_discrepancy(tokens, bank)
    torch.testing.assert_close(found.deviation, torch.tensor([[[[0.6, 0.2], [0.0, 0.0]]]]))
    torch.testing.assert_close(found.discrepancy, torch.tensor([[[0.2, 0.0]]]))


def test_a_layer_is_matched_with_its_own_bank():
    tokens, bank = unit(3, 2, 5, 6), unit(3, 7, 6, seed=1)
    found = feature_discrepancy(tokens, bank)
    for layer in range(3):
        alone = feature_discrepancy(tokens[layer : layer + 1], bank[layer : layer + 1])
        torch.testing.assert_close(found.deviation[layer], alone.deviation[0])


def test_shuffled_and_repeated_references_change_nothing():
    tokens, bank = unit(2, 3, 10, 6), unit(2, 20, 6, seed=1)
    found = feature_discrepancy(tokens, bank)
    shuffled = feature_discrepancy(tokens, bank[:, torch.randperm(20)])
    repeated = feature_discrepancy(tokens, bank.repeat(1, 3, 1))
    for other in (shuffled, repeated):
        torch.testing.assert_close(other.deviation, found.deviation)
        torch.testing.assert_close(other.discrepancy, found.discrepancy)


def test_a_reference_has_no_discrepancy_to_itself():
    tokens = unit(2, 1, 9, 6)
    found = feature_discrepancy(tokens, tokens[:, 0])
    assert found.deviation.abs().max() == 0
    assert found.discrepancy.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("tokens", "bank", "said"),
    [((2, 1, 4, 6), (3, 5, 6), "same L"), ((2, 1, 4, 6), (2, 0, 6), "R >= 1"), ((2, 1, 4, 6), (2, 5, 7), "width")],
)
def test_what_cannot_be_matched_is_refused(tokens: tuple[int, ...], bank: tuple[int, ...], said: str):
    with pytest.raises(ValueError, match=said):
        feature_discrepancy(torch.zeros(tokens), torch.zeros(bank))


@given(st.integers(1, 600), st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_a_rows_maximum_is_its_first(width: int, rows: int, seed: int):
    matrix = torch.randint(0, 4, (rows, width), generator=torch.Generator().manual_seed(seed)).float()  # many ties
    value, index = _first_maximum(matrix)
    for row, v, i in zip(matrix.tolist(), value.tolist(), index.tolist(), strict=True):
        assert (v, i) == (max(row), row.index(max(row)))


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 20), st.integers(4, 3000), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_groups_are_searched_each_in_its_own_bank(groups: int, q: int, r: int, max_bytes: int, seed: int):
    query, bank = unit(groups, q, 6, seed=seed), unit(groups, r, 6, seed=seed + 1)
    similarity, index = nearest(query, bank, max_bytes)
    for g in range(groups):
        alone, at = nearest(query[g], bank[g])
        torch.testing.assert_close(similarity[g], alone, atol=1e-6, rtol=0)
        assert (bank[g][index[g]] * query[g]).sum(1).sub(alone).abs().max() < 1e-6
        assert at.shape == (q,)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(4, 4000), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_a_window_is_matched_within_the_units_it_is_given(windows: int, units: int, max_bytes: int, seed: int):
    tokens, bank = unit(2, windows, 5, 6, seed=seed), unit(2, units, 4, 6, seed=seed + 1)
    generator = torch.Generator().manual_seed(seed)
    m = min(2, units)
    own = torch.stack([torch.randperm(units, generator=generator)[:m].sort().values for _ in range(windows)])
    found = feature_discrepancy_within(tokens, bank, own, max_bytes)
    for w in range(windows):
        alone = feature_discrepancy(tokens[:, w : w + 1], bank[:, own[w]].flatten(1, 2))
        torch.testing.assert_close(found.deviation[:, w : w + 1], alone.deviation, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.discrepancy[:, w : w + 1], alone.discrepancy, atol=1e-6, rtol=0)
