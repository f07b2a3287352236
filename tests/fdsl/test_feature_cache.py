"""The feature cache: what comes back is what was kept, or nothing."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from fdsl import feature_cache
from fdsl.backbones import Encoding, RandomViT
from fdsl.feature_cache import DamagedEntryError, FeatureCache, content_of, entries, read_entry, shelves, size_of

MADE_WITH = {"weights": "abc", "image_size": 56}


def encoding(seed: int = 0, tokens: int = 16) -> Encoding:
    generator = torch.Generator().manual_seed(seed)
    return Encoding(torch.randn(4, tokens, 8, generator=generator), torch.randn(8, generator=generator))


def same(a: Encoding, b: Encoding) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_fp32_comes_back_bit_by_bit(tmp_path: Path):
    cache = FeatureCache(tmp_path, MADE_WITH)
    assert cache.read("a") is None
    assert same(cache.write("a", encoding()), encoding())
    assert same(FeatureCache(tmp_path, MADE_WITH).read("a"), encoding())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_same_for_the_run_that_writes(dtype: torch.dtype, tmp_path: Path):
    cache = FeatureCache(tmp_path, MADE_WITH, dtype)
    used = cache.write("a", encoding())
    assert torch.equal(used.tokens, encoding().tokens.to(dtype).float())
    assert same(cache.read("a"), used)
    assert FeatureCache(tmp_path, MADE_WITH).read("a") is None


def test_another_origin_is_another_shelf(tmp_path: Path):
    FeatureCache(tmp_path, MADE_WITH).write("a", encoding())
    assert FeatureCache(tmp_path, MADE_WITH | {"weights": "abd"}).read("a") is None
    assert len(list(shelves(tmp_path))) == 1


@pytest.mark.parametrize("place", [3, 200, -40, -1])
def test_any_altered_byte_is_found(place: int, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    cache = FeatureCache(tmp_path, MADE_WITH)
    cache.write("a", encoding())
    (path,) = entries(cache.folder)
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)
    with pytest.raises(DamagedEntryError):
        read_entry(path)
    assert cache.read("a") is None
    assert "damaged entry" in caplog.text
    assert same(cache.write("a", encoding()), encoding())
    assert same(cache.read("a"), encoding())


@pytest.mark.parametrize("size", [0, 7, 100, 2000])
def test_a_truncated_entry_is_found(size: int, tmp_path: Path):
    cache = FeatureCache(tmp_path, MADE_WITH)
    cache.write("a", encoding())
    (path,) = entries(cache.folder)
    path.write_bytes(path.read_bytes()[:size])
    assert cache.read("a") is None


def entry_size(folder: Path) -> int:
    FeatureCache(folder, MADE_WITH).write("x", encoding())
    return next(entries(next(shelves(folder)))).stat().st_size


def test_the_limit_holds_and_the_oldest_goes_first(tmp_path: Path):
    size = entry_size(tmp_path / "measure")
    old = FeatureCache(tmp_path / "c", MADE_WITH)
    for i in range(4):
        old.write(f"{i}", encoding(i))
        os.utime(old.folder / f"{i}.safetensors", (1000 + i, 1000 + i))
    os.utime(old.folder / "0.safetensors", (5000, 5000))  # read later than the others
    fresh = FeatureCache(tmp_path / "c", MADE_WITH, limit=5 * size + size // 2)
    fresh.write("4", encoding(4))
    fresh.write("5", encoding(5))
    assert {p.stem for p in entries(fresh.folder)} == {"0", "2", "3", "4", "5"}
    assert size_of(tmp_path / "c") <= fresh.limit


def test_a_run_does_not_push_out_what_it_uses_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    size = entry_size(tmp_path / "measure")
    for _ in range(2):  # the second pass finds the first three, as the first pass left them
        cache = FeatureCache(tmp_path / "c", MADE_WITH, limit=3 * size + size // 2)
        found = [cache.read(f"{i}") is not None for i in range(6)]
        for i in range(6):
            if not found[i]:
                cache.write(f"{i}", encoding(i))
    assert found == [True, True, True, False, False, False]
    assert "takes no more in this run" in caplog.text


def test_a_disk_that_cannot_be_written_costs_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch):
    cache = FeatureCache(tmp_path / "c", MADE_WITH)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert same(cache.write("a", encoding()), encoding())
    assert same(cache.write("b", encoding(1)), encoding(1))
    assert caplog.text.count("No space left on device") == 1
    assert list(entries(cache.folder)) == []


def test_a_nearly_full_disk_is_left_alone(tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(feature_cache, "FREE_BYTES", 1 << 60)
    cache = FeatureCache(tmp_path, MADE_WITH)
    cache.write("a", encoding())
    assert cache.read("a") is None
    assert "its disk is nearly full" in caplog.text


def _hammer(root: Path, limit: int, worker: int) -> None:
    cache = FeatureCache(root, MADE_WITH, limit=limit)
    for step in range(150):
        name = (step * 7 + worker) % 12
        found = cache.read(f"{name}")
        if found is None:
            cache.write(f"{name}", encoding(name))
        elif not same(found, encoding(name)):
            os._exit(1)
        cache._since = time.time()  # so that every process evicts what the others use


def test_several_processes_never_read_anything_wrong(tmp_path: Path):
    limit = 8 * entry_size(tmp_path / "measure")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_hammer, args=(tmp_path / "c", limit, i)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_a_batch_is_completed_from_what_is_known():
    backbone = RandomViT()
    images = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    whole = backbone(images)

    def of(i: int) -> Encoding:
        return Encoding(whole.tokens[:, i], whole.image_feature[i])

    for known in ([None] * 3, [of(0), None, of(2)], [of(0), of(1), of(2)]):
        missing = [i for i, each in enumerate(known) if each is None]
        for given in (images, images[missing]):
            cache = FeatureCache(Path(os.devnull) / "nowhere", {})
            made = cache.complete(backbone, given, list("abc"), known)
            torch.testing.assert_close(made.tokens, whole.tokens)
            torch.testing.assert_close(made.image_feature, whole.image_feature)


def test_images_are_named_by_their_values():
    image = torch.rand(3, 8, 8)
    assert content_of(image) == content_of(image.clone())
    other = image.clone()
    other[0, 0, 0] += 1e-6
    assert content_of(image) != content_of(other)
