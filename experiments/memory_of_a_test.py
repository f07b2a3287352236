"""Peak memory of one test pass in a process of its own; ``benchmark_scoring.py`` runs it and compares.

    python experiments/memory_of_a_test.py --images 500 --small --metrics backbone=vit_s_pypi

Scores random images one by one against 4 references, as a test does; with ``--metrics`` it keeps what exact metrics
need and computes them. ``--small`` takes images of a quarter of the area, so that 500 of them take minutes.
"""

import argparse
import json
from pathlib import Path

import torch
from benchmark_metrics import peak_gigabytes
from hydra import compose, initialize_config_dir

from fdsl.build import built
from fdsl.category import CategoryTest
from fdsl.config import register
from fdsl.detector import METHODS, Detector
from fdsl.local_features import LocalFeatures
from fdsl.score_learning import ScoreHead

CONF = Path(__file__).resolve().parent.parent / "conf"


def main() -> None:
    """Run one pass and print its peak as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--windows", action="store_true", help="with the window branch (winmode mul)")
    parser.add_argument("--metrics", action="store_true", help="keep maps and compute exact metrics")
    parser.add_argument("--small", action="store_true")
    arguments, overrides = parser.parse_known_args()
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["run_dir=x", *overrides])
    backbone = built(dict(config.backbone.model))
    patch = backbone.spec.patch_size
    side = config.backbone.image_size // patch
    size = patch * (side // 2 if arguments.small else side)
    memory = config.memory
    local = LocalFeatures(config.win_size, config.win_stride, config.win_batch_size, memory.search, memory.top_m or 1)
    head = ScoreHead(len(backbone.blocks), backbone.spec.width).eval()
    detector = Detector(backbone, head, local=local if arguments.windows else None)
    torch.manual_seed(0)
    test = CategoryTest(METHODS, "transductive")
    with torch.inference_mode():
        references = detector.encode_references(torch.randn(4, 3, size, size))
        for i in range(arguments.images):
            scores = detector(torch.randn(1, 3, size, size), references)
            if arguments.metrics:
                mask = torch.zeros(1, 240, 240, dtype=torch.uint8)
                mask[0, :20, :20] = i % 2
                test.update(scores, [str(i)], torch.tensor([i % 2]), mask, torch.tensor([True]))
    if arguments.metrics:
        test.finish()
    print(json.dumps({"images": arguments.images, "peak_gigabytes": round(peak_gigabytes(), 3)}))


if __name__ == "__main__":
    main()
