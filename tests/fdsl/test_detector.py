"""The detector: what must not change a score, for each way to look at windows and each memory."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fdsl.backbones import RandomViT
from fdsl.detector import METHODS, Detector
from fdsl.errors import ConfigError
from fdsl.local_features import SEARCHES, LocalFeatures
from fdsl.reference import References
from fdsl.score_learning import ScoreHead
from fdsl.scoring import AnomalyScore

BACKBONE = RandomViT(grid=6, image_feature="mean", image_feature_block=3)
SIZE = 6 * 14


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def detector(search: str = "own", top_m: int = 2, **options) -> Detector:
    torch.manual_seed(0)
    head = ScoreHead(4, 32).eval()
    local = LocalFeatures(size=4, stride=1, batch_size=4, search=search, top_m=top_m)
    return replace(Detector(BACKBONE, head, local=local, local_weight=0.4, map_size=24), **options)


def scored(made: Detector, queries: torch.Tensor, references: torch.Tensor) -> dict[str, AnomalyScore]:
    with torch.inference_mode():
        return made(queries, made.encode_references(references))


def assert_same(a: dict[str, AnomalyScore], b: dict[str, AnomalyScore], atol: float = 2e-6) -> None:
    for method in METHODS:
        torch.testing.assert_close(a[method], b[method], atol=atol, rtol=0)


@pytest.mark.parametrize("search", SEARCHES)
@given(st.permutations(range(3)), st.integers(0, 99))
@settings(deadline=None, max_examples=5)
def test_the_order_of_references_changes_nothing(search: str, order: list[int], seed: int):
    made, queries, references = detector(search), images(2, seed), images(3, seed + 100)
    assert_same(scored(made, queries, references), scored(made, queries, references[order]))


@pytest.mark.parametrize("search", SEARCHES)
def test_repeated_references_count_once(search: str):
    made, queries, references = detector(search, top_m=3), images(2, 0), images(2, 1)
    repeated = references[[0, 1, 0, 0, 1]]
    assert_same(scored(made, queries, references), scored(made, queries, repeated))
    assert made.encode_references(references).nbytes == made.encode_references(repeated).nbytes


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_neither_batches_of_windows_nor_of_images_change_a_score(search: str, batch_size: int):
    made, queries, references = detector(search), images(3, 0), images(2, 1)
    together = scored(made, queries, references)
    other = replace(made, local=replace(made.local, batch_size=batch_size))
    assert_same(scored(other, queries, references), together)
    one_by_one = [scored(other, query[None], references) for query in queries]
    for method in METHODS:
        joined = AnomalyScore(*(torch.cat(parts) for parts in zip(*(s[method] for s in one_by_one), strict=True)))
        torch.testing.assert_close(joined, together[method], atol=2e-6, rtol=0)


def test_winmode_is_where_the_weight_of_windows_lies():
    queries, references = images(2, 0), images(1, 1)
    mul, only, nan = detector(), detector(local_weight=1.0), detector(local=None)
    made = {name: scored(d, queries, references)["fdsl"] for name, d in (("mul", mul), ("only", only), ("nan", nan))}
    torch.testing.assert_close(made["mul"].map, 0.6 * made["nan"].map + 0.4 * made["only"].map)
    torch.testing.assert_close(made["mul"].peak, 0.6 * made["nan"].peak + 0.4 * made["only"].peak)
    assert only.encode_references(references).whole is None
    assert nan.encode_references(references).windows is None


def test_onlywin_never_encodes_the_whole_image():
    seen = set()
    handle = BACKBONE.register_forward_hook(lambda module, given, made: seen.add(given[0].shape[-1]))
    scored(detector(local_weight=1.0), images(1, 0), images(1, 1))
    handle.remove()
    assert seen == {4 * 14}


def test_own_and_union_with_all_windows_are_full():
    queries, references = images(2, 0), images(2, 1)
    full = scored(detector("full"), queries, references)
    for search in ("own", "union"):
        assert_same(scored(detector(search, top_m=18), queries, references), full)
        assert_same(scored(detector(search, top_m=99), queries, references), full)


def test_fewer_windows_are_never_nearer():
    """Each window searches a part of what the larger memory searches, so its discrepancy cannot be less."""
    queries, references = images(2, 0), images(2, 1)
    maps = [
        scored(detector(search, m, local_weight=1.0), queries, references)["fd"].map
        for search, m in (("full", 0), ("own", 4), ("own", 2), ("own", 1))
    ]
    for nearer, farther in pairwise(maps):
        assert (farther - nearer).min() > -1e-6
    union = scored(detector("union", 1, local_weight=1.0), queries, references)["fd"].map
    assert (union - maps[0]).min() > -1e-6  # own 1 searches a part of the union, the union a part of everything
    assert (maps[3] - union).min() > -1e-6


def test_a_reference_looks_normal_to_its_own_windows():
    found = scored(detector("own", 1), images(1, 3), images(1, 3))["fd"]
    assert found.map.max() < 1e-5


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_is_storage_only(dtype: torch.dtype, atol: float):
    queries, references = images(2, 0), images(2, 1)
    full = detector("own", dtype=torch.float32)
    half = detector("own", dtype=dtype)
    half = replace(half, local=replace(half.local, dtype=dtype))
    assert half.encode_references(references).nbytes < 0.55 * full.encode_references(references).nbytes
    made = scored(half, queries, references)
    assert made["fdsl"].map.dtype == torch.float32
    assert_same(made, scored(full, queries, references), atol)


def test_what_does_not_fit_is_refused():
    made = detector()
    with pytest.raises(ConfigError, match="leaves cells"):
        scored(replace(made, local=replace(made.local, stride=3)), images(1, 0), images(1, 1))
    with pytest.raises(ValueError, match="no bank of windows"):
        made(images(1, 0), References(made.encode_references(images(1, 1)).whole, None))
    with pytest.raises(ValueError, match="at least one reference"):
        made.encode_references(images(0, 0))
