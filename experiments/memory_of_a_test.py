"""Peak memory of one test pass in a process of its own; ``benchmark_scoring.py`` runs it and compares.

    python experiments/memory_of_a_test.py --images 500 --small --metrics backbone=vit_s_pypi winmode=nan kshots=4

Scores random images one by one against ``kshots`` references with the given configuration, as a test does; with
``--metrics`` it keeps what exact metrics need and computes them. ``--small`` halves the images' sides, so that 500 of
them take minutes. Resident memory on a CPU, allocated memory on a GPU.
"""

import argparse
import json
from pathlib import Path

import torch
from benchmark_metrics import peak_gigabytes
from hydra import compose, initialize_config_dir

from fdsl import cli
from fdsl.build import built, check_backbone, make_detector
from fdsl.category import CategoryTest
from fdsl.config import register, typed
from fdsl.detector import METHODS

CONF = Path(__file__).resolve().parent.parent / "conf"


def main() -> None:
    """Run one pass and print its peak as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--metrics", action="store_true", help="keep maps and compute exact metrics")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments, overrides = parser.parse_known_args()
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("config", ["run_dir=x", *overrides]))
    patches = check_backbone(config) // (2 if arguments.small else 1)
    detector = make_detector(config, built(config.backbone.model).to(arguments.device))
    detector.head.eval().to(arguments.device)
    size = patches * detector.backbone.spec.patch_size
    torch.manual_seed(0)
    test = CategoryTest(METHODS, config.image_score)
    with torch.inference_mode():
        references = detector.encode_references(torch.randn(config.kshots, 3, size, size, device=arguments.device))
        for i in range(arguments.images):
            scores = detector(torch.randn(1, 3, size, size, device=arguments.device), references)
            if arguments.metrics:
                mask = torch.zeros(1, config.map_size, config.map_size, dtype=torch.uint8)
                mask[0, :20, :20] = i % 2
                test.update(scores, [str(i)], torch.tensor([i % 2]), mask, torch.tensor([True]))
    if arguments.metrics:
        test.finish()
    on_gpu = arguments.device.startswith("cuda")
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else peak_gigabytes()
    print(json.dumps({"images": arguments.images, "peak_gigabytes": round(peak, 3), "bank_bytes": references.nbytes}))


if __name__ == "__main__":
    cli.call(lambda: cli.job(main))
