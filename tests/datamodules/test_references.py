import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import DatasetError, MVTecDataModule, Sample
from datamodules.references import draw_references
from tests.stand_in import CLIP_MEAN, CLIP_STD

PUBLISHED = ["013", "018", "017", "005"]


def normals(count: int, category: str = "bottle") -> list[Sample]:
    return [Sample(f"{category}/train/good/{i:03d}.png", category, "train", "good", None) for i in range(count)]


@given(st.integers(1, 30), st.integers(0, 10**6), st.randoms())
def test_draws_are_distinct_nested_and_independent_of_order(count: int, seed: int, random):
    pool = normals(count)
    full = draw_references(pool, count, seed)
    assert len(set(full)) == count
    shuffled = pool[:]
    random.shuffle(shuffled)
    for k in range(1, count + 1):
        assert draw_references(shuffled, k, seed) == full[:k]


def test_seeds_and_categories_draw_differently():
    drawn = {tuple(s.path for s in draw_references(normals(50), 4, seed)) for seed in range(20)}
    assert len(drawn) > 15
    numbers = {tuple(s.path[-7:] for s in draw_references(normals(50, c), 4, 0)) for c in ("a", "b", "c", "d")}
    assert len(numbers) == 4


def test_every_image_is_drawn_about_equally_often():
    counts = dict.fromkeys((s.path for s in normals(10)), 0)
    for seed in range(2000):
        counts[draw_references(normals(10), 1, seed)[0].path] += 1
    assert min(counts.values()) > 140  # 200 expected; 5 standard deviations
    assert max(counts.values()) < 270


def test_the_published_draw_does_not_change():
    # Reference lists are part of published results: this one may never change.
    drawn = draw_references(normals(20), 4, seed=0)
    assert [s.path[-7:-4] for s in drawn] == PUBLISHED
    renamed = [
        Sample(s.path.replace("bottle/", "bottle_textture/"), "bottle", "train", "good", None) for s in normals(20)
    ]
    assert [s.path[-7:-4] for s in draw_references(renamed, 4, seed=0)] == PUBLISHED


def test_with_replacement_may_repeat_and_may_exceed_the_pool():
    drawn = draw_references(normals(3), 8, 0, "with_replacement")
    assert len(drawn) == 8
    assert len(set(drawn)) <= 3


def test_too_few_normals_are_refused():
    with pytest.raises(ValueError, match="bottle has 3 defect-free training images, 4 references"):
        draw_references(normals(3), 4, 0)


def data(root: Path, **kwargs) -> MVTecDataModule:
    made = MVTecDataModule(str(root), 28, CLIP_MEAN, CLIP_STD, **kwargs)
    made.setup()
    return made


def test_the_same_references_whatever_else_is_switched(mvtec_root: Path):
    alone = data(mvtec_root, kshots=2, categories=["tiles"], limit=1, batch_size=1).reference_manifest()
    among = data(mvtec_root, kshots=2).reference_manifest()
    assert alone["references"]["tiles"] == among["references"]["tiles"]


def test_a_manifest_reads_back_and_is_verified(mvtec_root: Path, tmp_path: Path):
    published = data(mvtec_root, kshots=2, seed=5).reference_manifest()
    path = tmp_path / "references.json"
    path.write_text(json.dumps(published))
    reread = data(mvtec_root, kshots=2, references=str(path)).reference_manifest()
    assert reread["references"] == published["references"]

    with pytest.raises(DatasetError, match="lists 2 references, kshots is 1"):
        data(mvtec_root, kshots=1, references=str(path))
    published["references"]["plate"][0]["path"] = "plate/test/good/000.png"
    published["references"]["tiles"][1]["sha256"] = "0" * 64
    path.write_text(json.dumps(published))
    with pytest.raises(DatasetError) as refused:
        data(mvtec_root, kshots=2, references=str(path))
    assert len(refused.value.problems) == 2
    assert "plate/test/good/000.png: no training image of plate" in str(refused.value)
    assert "SHA-256 differs" in str(refused.value)
    path.write_text("[]")
    with pytest.raises(DatasetError, match="not a reference manifest"):
        data(mvtec_root, references=str(path))
