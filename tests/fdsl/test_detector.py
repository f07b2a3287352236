"""The detector: what must not change a score, for each way to look at windows and each memory."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fdsl.backbones import Encoding, RandomViT
from fdsl.detector import METHODS, Detector
from fdsl.errors import ConfigError
from fdsl.local_features import SEARCHES, LocalFeatures
from fdsl.reference import References
from fdsl.score_learning import ScoreHead
from fdsl.scoring import AnomalyScore

BACKBONE = RandomViT(grid=6, image_feature="mean", image_feature_block=3)
SIZE = 6 * 14


def sensitive_head() -> ScoreHead:
    """A head whose scores spread over [0, 1] and follow every change of a deviation."""
    generator = torch.Generator().manual_seed(0)
    head = ScoreHead(4, 32).eval()
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.copy_(torch.rand(module.running_mean.shape, generator=generator) * 0.1)
            module.running_var.fill_(0.01)
        elif isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * 0.3)
    return head


HEAD = sensitive_head()


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def detector(search: str = "own", top_m: int = 2, **options) -> Detector:
    local = LocalFeatures(size=4, stride=1, batch_size=4, search=search, top_m=top_m)
    return replace(Detector(BACKBONE, HEAD, local=local, local_weight=0.4, map_size=24), **options)


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


def test_other_references_change_the_learned_map():
    """Else agreement of two maps would say nothing."""
    made, queries = detector(), images(2, 0)
    a, b = (scored(made, queries, images(2, seed))["fdsl"].map for seed in (1, 2))
    assert (a - b).abs().max() > 0.05
    assert a.max() - a.min() > 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_storage_only(dtype: torch.dtype):
    queries, references = images(2, 0), images(2, 1)
    full, half = detector("own", dtype=torch.float32), detector("own", dtype=dtype)
    with torch.inference_mode():
        stored = half.encode_references(references)
        assert stored.nbytes < 0.55 * full.encode_references(references).nbytes
        rounded = References(*(replace(bank, tokens=bank.tokens.float()) for bank in stored))
        made, expected = half(queries, stored), full(queries, rounded)
    assert made["fdsl"].map.dtype == torch.float32
    assert_same(made, expected)


@pytest.mark.parametrize("search", SEARCHES)
def test_only_the_backbone_runs_in_the_callers_precision(search: str):
    """Under autocast all that follows the backbone is what fp32 makes of its tokens."""
    made, queries, references = detector(search), images(2, 0), images(2, 1)

    class Rounded:
        spec, blocks = BACKBONE.spec, BACKBONE.blocks

        def __call__(self, pixels: torch.Tensor) -> Encoding:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                tokens, feature = BACKBONE(pixels)
            return Encoding(tokens.float(), feature.float())

    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = scored(made, queries, references)
    assert_same(half, scored(replace(made, backbone=Rounded()), queries, references))


def test_a_window_outside_the_union_is_not_searched_and_none_twice():
    bank = detector().encode_references(images(3, 1)).windows
    picks = torch.cat([bank.image_feature[[4, 7, 4]], bank.image_feature[[7]]])
    union = bank.union(picks, 1)
    assert torch.equal(union.image_feature, bank.image_feature[[4, 7]])
    assert torch.equal(union.tokens, bank.tokens[:, [4, 7]])


def test_the_batch_of_windows_bounds_what_is_encoded_at_one_time():
    made = detector("full")
    largest = max(len(part) for part in made.local.cut(BACKBONE, images(1, 0)[0]))
    assert largest == made.local.batch_size == 4


@pytest.mark.parametrize(
    "options", [{"search": "some"}, {"top_m": 0}, {"top_m": None}, {"stride": 0}, {"batch_size": 0}]
)
def test_choices_there_are_not_are_refused(options: dict):
    with pytest.raises(ConfigError, match="must be"):
        LocalFeatures(**options)
    assert LocalFeatures(search="full", top_m=None).top_m is None


def test_what_does_not_fit_is_refused():
    made = detector()
    for size, stride, said in ((4, 3, "leaves cells"), (7, 1, "larger than the 6 x 6")):
        with pytest.raises(ConfigError, match=said):
            replace(made, local=LocalFeatures(size, stride)).encode_references(images(1, 1))
    with pytest.raises(ValueError, match="no bank of windows"):
        made(images(1, 0), References(made.encode_references(images(1, 1)).whole, None))
    with pytest.raises(ValueError, match="at least one reference"):
        made.encode_references(images(0, 0))
