"""Fixtures that tests share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.stand_in import GOLDEN, StandIn


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture
def mvtec_root(tmp_path: Path) -> Path:
    """A small dataset in MVTec AD's layout, to be damaged at will."""
    root = tmp_path / "mvtec"
    shutil.copytree(GOLDEN / "mvtec", root)
    (root / "meta.json").unlink()
    return root


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Writes a small image of random pixels, or one of a single value."""

    def make(path: Path, size: tuple[int, int] = (32, 32), value: int | None = None, mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        seed = sum(path.as_posix().encode())
        pixels = np.random.default_rng(seed).integers(0, 256, shape) if value is None else np.full(shape, value)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    return make


@pytest.fixture
def visa_root(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """A small dataset in VisA's layout: masks hold 2 where defective."""
    root = tmp_path / "visa"
    lines = ["object,split,label,image,mask"]
    for name in ("candle", "fryum"):
        for i in range(3):
            split = "train" if i < 2 else "test"
            path = f"{name}/Data/Images/Normal/{i:04d}.JPG"
            draw(root / path)
            lines.append(f"{name},{split},normal,{path},")
        for i in range(2):
            path, mask = f"{name}/Data/Images/Anomaly/{i:03d}.JPG", f"{name}/Data/Masks/Anomaly/{i:03d}.png"
            draw(root / path)
            values = np.zeros((32, 32), np.uint8)
            values[4:20, 8:24] = 2
            (root / mask).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / mask)
            lines.append(f"{name},test,anomaly,{path},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def roots(mvtec_root: Path, visa_root: Path) -> list[str]:
    return [f"data.root={mvtec_root}", f"aux.root={visa_root}"]
