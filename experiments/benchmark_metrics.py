"""Time and peak memory of the exact metrics on one large class.

Draws a class of random anomaly maps, half of them with defects, feeds it image by image as a test run does,
and fails if the metrics take longer than 60 seconds or the process ever holds more than 4 GB:

    python experiments/benchmark_metrics.py --images 1000 --size 240
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch

from fdsl.metrics import ImageMetrics, PixelMetrics

MAX_SECONDS = 60.0
MAX_GIGABYTES = 4.0


def random_image(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A map and its mask, both (size, size); about half of them have one to three raised rectangles."""
    anomaly_map = torch.randn(size, size, generator=generator)
    mask = torch.zeros(size, size, dtype=torch.uint8)
    defects = int(torch.randint(-2, 4, (), generator=generator))
    for _ in range(defects):
        top, left = torch.randint(0, size, (2,), generator=generator).tolist()
        height, width = torch.randint(1, size // 4 + 1, (2,), generator=generator).tolist()
        mask[top : top + height, left : left + width] = 1
    return anomaly_map + 1.5 * mask, mask


def peak_gigabytes() -> float:
    """Most resident memory this process has held, in GB.

    Linux says it in /proc; its ``ru_maxrss`` would be the parent's, where that held more when it began this process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9  # in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    """Run the benchmark and exit non-zero if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=240, help="height and width of a map in pixels")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    image_metrics, pixel_metrics = ImageMetrics(), PixelMetrics()
    seconds = 0.0  # of the metrics alone, not of drawing the images
    for _ in range(args.images):
        anomaly_map, mask = random_image(args.size, generator)
        start = time.perf_counter()
        image_metrics.update(anomaly_map.max()[None], mask.max()[None])
        pixel_metrics.update(anomaly_map[None], mask[None])
        seconds += time.perf_counter() - start

    start = time.perf_counter()
    metrics = image_metrics.compute() | pixel_metrics.compute()
    seconds += time.perf_counter() - start

    figures = {
        "images": args.images,
        "size": args.size,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 2),
        "peak_gigabytes": round(peak_gigabytes(), 2),
        "metrics": metrics,
    }
    report = json.dumps(figures, indent=2)
    print(report)
    if args.out is not None:
        args.out.write_text(report + "\n", encoding="utf-8")

    if seconds > MAX_SECONDS:
        sys.exit(f"too slow: the metrics took {seconds:.1f} s, the limit is {MAX_SECONDS:.0f} s")
    if peak_gigabytes() > MAX_GIGABYTES:
        sys.exit(f"too large: the process held {peak_gigabytes():.2f} GB, the limit is {MAX_GIGABYTES:.0f} GB")


if __name__ == "__main__":
    main()
