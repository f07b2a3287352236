from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DatasetError, MVTecDataModule
from datamodules.augment import Mosaic
from datamodules.check_data import main as check_data
from fdsl.errors import ConfigError
from tests.stand_in import CLIP_MEAN, CLIP_STD


def make(root: Path, **kwargs) -> MVTecDataModule:
    made = MVTecDataModule(str(root), 28, CLIP_MEAN, CLIP_STD, **{"map_size": 24, **kwargs})
    made.setup()
    return made


def test_one_loader_a_category_in_order(mvtec_root: Path):
    data = make(mvtec_root, batch_size=4)
    assert data.categories == ("plate", "tiles")
    for category, loader in zip(data.categories, data.test_dataloader(), strict=True):
        batches = list(loader)
        assert [len(b["path"]) for b in batches] == [4, 2]
        assert {c for b in batches for c in b["category"]} == {category}
        assert [p for b in batches for p in b["path"]] == data.test_paths()[category]
        assert batches[0]["image"].shape == (4, 3, 28, 28)
        assert batches[0]["mask"].shape == (4, 24, 24)
        assert batches[0]["mask"].dtype == torch.uint8
        assert batches[1]["defect_visible"].all()
    assert data.reference_images("plate").shape == (1, 3, 28, 28)


def test_references_are_never_tested(mvtec_root: Path):
    data = make(mvtec_root, kshots=4)
    for category, entries in data.reference_manifest()["references"].items():
        assert not {e["path"] for e in entries} & set(data.test_paths()[category])


def test_limit_keeps_both_labels(mvtec_root: Path):
    paths = make(mvtec_root, limit=2).test_paths()["plate"]
    assert [p.split("/")[2] for p in paths] == ["good", "good", "scratch", "scratch"]


def test_a_restricted_run_is_not_stopped_by_other_categories(mvtec_root: Path):
    (mvtec_root / "tiles" / "ground_truth" / "scratch" / "001_mask.png").unlink()
    assert make(mvtec_root, categories=["plate"]).categories == ("plate",)
    with pytest.raises(DatasetError, match=r"tiles/test/scratch/001\.png"):
        make(mvtec_root)


def test_unknown_categories_are_named(mvtec_root: Path):
    with pytest.raises(ConfigError, match=r"unknown category foo: .* has plate, tiles"):
        make(mvtec_root, categories=["plate", "foo"])


def test_too_few_normals_of_any_category_are_all_named(mvtec_root: Path):
    (mvtec_root / "tiles" / "train" / "good" / "000.png").unlink()
    with pytest.raises(DatasetError) as refused:
        make(mvtec_root, kshots=4)
    assert refused.value.problems == ["tiles has 3 defect-free training images, 4 references were asked for"]


def test_all_broken_files_are_reported_at_once(mvtec_root: Path, draw, capsys: pytest.CaptureFixture):
    (mvtec_root / "plate" / "test" / "good" / "000.png").write_bytes(b"")
    (mvtec_root / "plate" / "train" / "good" / "001.png").write_text("no image")
    draw(mvtec_root / "tiles" / "ground_truth" / "scratch" / "000_mask.png", size=(64, 96), value=255, mode="L")
    (mvtec_root / "tiles" / "ground_truth" / "scratch" / "002_mask.png").unlink()
    with pytest.raises(DatasetError) as refused:
        make(mvtec_root)
    text = "\n".join(refused.value.problems)
    assert len(refused.value.problems) == 4
    assert "plate/test/good/000.png: empty file" in text
    assert "plate/train/good/001.png: not readable" in text
    assert "000_mask.png: mask is 64 x 96, its image tiles/test/scratch/000.png is 96 x 96" in text
    assert "tiles/test/scratch/002.png: defective (scratch) but has no mask" in text

    # decoding finds what headers do not show
    whole = (mvtec_root / "tiles" / "test" / "good" / "000.png").read_bytes()
    (mvtec_root / "tiles" / "test" / "good" / "000.png").write_bytes(whole[: len(whole) // 2])
    draw(mvtec_root / "plate" / "ground_truth" / "scratch" / "000_mask.png", size=(96, 96), value=0, mode="L")
    assert check_data(["mvtec", str(mvtec_root)]) == 1
    out = capsys.readouterr().out
    assert "tiles/test/good/000.png: cannot be read" in out
    assert "plate/ground_truth/scratch/000_mask.png: empty, but" in out
    assert "6 problems" in out


def test_a_sound_dataset_passes_the_check(mvtec_root: Path, capsys: pytest.CaptureFixture):
    assert check_data(["mvtec", str(mvtec_root)]) == 0
    assert "20 images, 2 categories, 0 problems" in capsys.readouterr().out


def test_a_defect_outside_the_crop_is_flagged(mvtec_root: Path, draw):
    for i in range(3):
        draw(mvtec_root / "plate" / "test" / "scratch" / f"{i:03d}.png", size=(200, 50))
        path = draw(mvtec_root / "plate" / "ground_truth" / "scratch" / f"{i:03d}_mask.png", (200, 50), 0, "L")
        pixels = np.zeros((50, 200), np.uint8)
        pixels[10:40, 180:] = 255
        Image.fromarray(pixels).save(path)
    batch = next(iter(make(mvtec_root, categories=["plate"]).test_dataloader()[0]))
    assert batch["defect_visible"].tolist() == [True] * 3 + [False] * 3
    batch = next(iter(make(mvtec_root, categories=["plate"], fit="stretch").test_dataloader()[0]))
    assert batch["defect_visible"].all()


def images(data: MVTecDataModule, epoch: int = 0) -> list[torch.Tensor]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [batch["image"] for batch in loader]


def test_training_images_depend_on_seed_and_epoch_alone(mvtec_root: Path):
    kwargs = {"augment": Mosaic(p=0.5), "batch_size": 5, "seed": 3}
    first = images(make(mvtec_root, **kwargs))
    assert all(torch.equal(a, b) for a, b in zip(first, images(make(mvtec_root, **kwargs)), strict=True))
    workers = images(make(mvtec_root, **kwargs, num_workers=2))
    assert all(torch.equal(a, b) for a, b in zip(first, workers, strict=True))
    assert not torch.equal(first[0], images(make(mvtec_root, **kwargs), epoch=1)[0])
    assert not torch.equal(first[0], images(make(mvtec_root, **{**kwargs, "seed": 4}))[0])


def test_a_training_loader_goes_on_where_it_stopped(mvtec_root: Path):
    data = make(mvtec_root, augment=Mosaic(p=0.5), batch_size=5)
    whole = images(data, epoch=2)
    assert len(whole) == 3
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    fresh = data.train_dataloader()
    fresh.load_state_dict(state)
    fresh.sampler.set_epoch(2)
    rest = [batch["image"] for batch in fresh]
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))
    fresh.sampler.set_epoch(3)
    assert len(list(fresh)) == 3  # the epoch after is whole again
