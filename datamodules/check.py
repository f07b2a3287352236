"""Finding all that is wrong with a dataset's files: headers before a run, every pixel in ``check_data``."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from datamodules.images import ImageReadError, open_image, open_mask
from datamodules.samples import Sample


def file_problems(root: Path, samples: Sequence[Sample]) -> list[str]:
    """Check headers only: files missing, empty or no image, and masks of another size than their image."""
    problems: list[str] = []
    for sample in samples:
        size = _size(root / sample.path, problems)
        if sample.mask is not None:
            mask_size = _size(root / sample.mask, problems)
            if size and mask_size and size != mask_size:
                problems.append(f"{sample.mask}: mask is {_by(mask_size)}, its image {sample.path} is {_by(size)}")
    return problems


def repeated(samples: Sequence[Sample]) -> list[str]:
    """Find images that are listed twice, above all those that would be both reference and test image."""
    splits: dict[str, list[str]] = {}
    for sample in samples:
        splits.setdefault(sample.path, []).append(sample.split)
    return [f"{path}: listed {len(s)} times, as {' and '.join(s)}" for path, s in splits.items() if len(s) > 1]


def content_problems(root: Path, samples: Iterable[Sample]) -> list[str]:
    """Decode every file: truncated images, and masks of defective images that are empty."""
    problems: list[str] = []
    for sample in samples:
        try:
            open_image(root / sample.path)
            if sample.mask is not None and not open_mask(root / sample.mask).any():
                problems.append(f"{sample.mask}: empty, but {sample.path} is labelled {sample.defect}")
        except ImageReadError as error:
            problems.append(str(error))
    return problems


def _size(path: Path, problems: list[str]) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        problems.append(f"{path}: missing")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        problems.append(
            f"{path}: {'empty file' if path.stat().st_size == 0 else f'not readable as an image ({error})'}"
        )
    return None


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
