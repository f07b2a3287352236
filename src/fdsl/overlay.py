"""Pictures of a category's worst misses and best hits: the image, its mask's outline, and the anomaly map."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from fdsl.category import CategoryResult, CategoryTest

LoadPixels = Callable[[str], NDArray[np.uint8]]


def chosen(scores: Tensor, labels: Tensor, count: int) -> dict[str, list[int]]:
    """Choose images by score: ``miss`` (low-scored defects and high-scored normals, by rank) and ``hit``.

    Args:
        scores: image scores (n,).
        labels: (n,), 1 where defective.
        count: at most so many of each.
    """
    order = torch.argsort(scores, stable=True).tolist()  # ascending
    rank = {index: place for place, index in enumerate(order)}
    defective = [i for i in order if labels[i]]
    normal = [i for i in reversed(order) if not labels[i]]
    # A defect is missed by the normals ranked above it, a normal by the defects ranked below it.
    missed = {i: sum(rank[j] > rank[i] for j in normal) for i in defective}
    missed |= {i: sum(rank[j] < rank[i] for j in defective) for i in normal}
    misses = sorted((i for i in missed if missed[i]), key=lambda i: (-missed[i], i))[:count]
    hits = [i for i in reversed(defective) if i not in misses][:count]
    return {"miss": misses, "hit": hits}


def write_overlays(
    folder: Path, category: str, test: CategoryTest, result: CategoryResult, load: LoadPixels, count: int
) -> None:
    """Write ``folder/category/{miss,hit}_<n>_<stem>.png`` from the images this process has tested.

    The colour scale is the category's own, so that its pictures can be compared with each other.
    """
    maps, masks = torch.cat(test.maps["fdsl"]), torch.cat(test.masks)
    low, high = maps.aminmax()
    place = {path: i for i, path in enumerate(result.paths)}
    mine = [place[path] for path in test.paths]  # this process's images among those of all processes
    scores, labels = result.image_scores["fdsl"][mine], result.labels[mine]
    target = folder / category
    target.mkdir(parents=True, exist_ok=True)
    for kind, indices in chosen(scores, labels, count).items():
        for number, i in enumerate(indices, start=1):
            path = Path(test.paths[i])
            name = f"{kind}_{number}_{path.parent.name}_{path.stem}.png"
            title = (
                f"{category}: {test.paths[i]}\n{'defective' if labels[i] else 'normal'}, score {scores[i]:.3f} ({kind})"
            )
            figure = panels(load(test.paths[i]), masks[i], maps[i], (float(low), float(high)), title)
            figure.savefig(target / name, dpi=100)


def panels(
    pixels: NDArray[np.uint8], mask: Tensor, anomaly_map: Tensor, limits: tuple[float, float], title: str
) -> Figure:
    """Draw image, image with the mask's outline, and image under the anomaly map, side by side.

    Args:
        pixels: (S, S, 3) uint8.
        mask: (M, M) of 0 and 1.
        anomaly_map: (M, M).
        limits: anomaly values at the two ends of the colour scale.
        title: above the picture.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    side = len(pixels)
    extent = (0, side, side, 0)
    for axis, name in zip(axes, ("image", "ground truth", "anomaly map"), strict=True):
        axis.imshow(pixels, extent=extent)
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    if mask.any():
        axes[1].contour(mask.numpy(), levels=[0.5], colors="red", linewidths=1.2, extent=extent, origin="upper")
    drawn = axes[2].imshow(
        anomaly_map.numpy(),
        cmap="turbo",
        alpha=0.55,
        extent=extent,
        vmin=limits[0],
        vmax=max(limits[1], limits[0] + 1e-9),
    )
    figure.colorbar(drawn, ax=axes[2], fraction=0.046)
    figure.suptitle(title, fontsize=9)
    return figure
