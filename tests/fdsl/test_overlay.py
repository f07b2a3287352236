from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fdsl.category import CategoryTest
from fdsl.overlay import chosen, write_overlays
from fdsl.scoring import score_maps


def test_misses_are_what_ranks_wrongly_and_hits_what_ranks_highest():
    scores = torch.tensor([0.1, 0.9, 0.2, 0.05, 0.8, 0.7])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    picked = chosen(scores, labels, 2)
    assert picked["miss"] == [1, 3]  # the normal above three defects, the defect below three normals
    assert picked["hit"] == [4, 5]
    perfect = chosen(torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([0, 0, 1, 1]), 3)
    assert perfect == {"miss": [], "hit": [3, 2]}


def test_pictures_are_written_and_hold_the_map(tmp_path: Path):
    test = CategoryTest(("fdsl", "fd"), score_mode="independent")
    maps = torch.zeros(2, 2, 4, 4)
    maps[:, 1, 1, 2] = 1.0
    mask = torch.zeros(2, 24, 24, dtype=torch.uint8)
    mask[1, 6:12, 12:18] = 1
    test.update(
        {"fdsl": score_maps(maps, 24), "fd": score_maps(maps, 24)},
        ["nut/test/good/0.png", "nut/test/hole/0.png"],
        torch.tensor([0, 1]),
        mask,
        torch.tensor([True, True]),
    )
    result = test.finish()
    assert result.metrics["fdsl"]["image_auroc"] == 1.0
    write_overlays(tmp_path, "nut", test, result, lambda path: np.full((56, 56, 3), 128, np.uint8), count=3)
    files = sorted(p.name for p in (tmp_path / "nut").iterdir())
    assert files == ["hit_1_hole_0.png"]
    picture = np.asarray(Image.open(tmp_path / "nut" / files[0]).convert("RGB")).astype(int)
    assert picture.shape == (350, 900, 3)
    left, right = picture[:, :280], picture[:, 565:840]
    colour = lambda part: (part.max(axis=2) - part.min(axis=2)).max()  # noqa: E731
    assert colour(left) < 10  # a grey image
    assert colour(right) > 80  # under a coloured map
