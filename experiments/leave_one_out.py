"""Leave one category out: train the head on all others' labelled defects, test k-shot on the one left out.

For any dataset in MVTec AD's layout, with any configuration:

    python experiments/leave_one_out.py data/real --kshots 1,4 backbone=vit_s_pypi training.epochs=3 aux.limit=16

Everything else is an override as ``train.py`` takes it. One head is trained for each category and tested at every
k. Prints, for each k, FDSL beside the training-free discrepancy map on the same references and images, and writes
``leave_one_out.json``. Categories that are already done in ``--out`` are not run again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from datamodules import read_mvtec
from fdsl import cli
from fdsl.config import register, typed
from fdsl.results import METRICS
from fdsl.run import run

CONF = Path(__file__).resolve().parent.parent / "conf"
SHOWN = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_aupro")


def one(root: Path, category: str, others: list[str], shots: list[int], folder: Path, given: list[str]) -> Any:
    """Train on ``others`` and test on ``category`` at every k in one pass; return the results by k."""
    overrides = [
        f"data.root={root}",
        "data=mvtec",
        f"data.categories=[{category}]",
        "aux=mvtec",
        f"aux.root={root}",
        f"aux.categories=[{','.join(others)}]",
        f"kshots={shots}",
        f"run_dir={folder}",
        *given,
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return dict(zip(shots, run(typed(compose("config", overrides))), strict=True))


def main() -> None:
    """Run all categories and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="dataset in MVTec AD's layout")
    parser.add_argument("--kshots", type=cli.numbers, default=[1, 4])
    parser.add_argument("--out", type=Path, default=Path("outputs/leave_one_out"))
    given, overrides = parser.parse_known_args()
    register()
    categories = sorted({s.category for s in read_mvtec(given.root).samples})
    found: dict[int, dict[str, Any]] = {k: {} for k in given.kshots}
    for category in categories:
        others = [c for c in categories if c != category]
        for k, result in one(given.root, category, others, given.kshots, given.out / category, overrides).items():
            found[k][category] = result
    figures = {k: {c: side_by_side(r, c) for c, r in by_category.items()} for k, by_category in found.items()}
    (given.out / "leave_one_out.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for k, by_category in figures.items():
        Console(width=120).print(table(k, by_category))


def side_by_side(result: dict[str, Any], category: str) -> dict[str, dict[str, float]]:
    """Pick one category's metrics of both methods out of a result."""
    return {"fd": result["baseline"]["fd"][category], "fdsl": result["metrics"][category]}


def table(k: int, figures: dict[str, dict[str, dict[str, float]]]) -> Table:
    """Lay out FD / FDSL in percent, for each category and in the mean."""
    means = {m: {n: sum(f[m][n] for f in figures.values()) / len(figures) for n in METRICS} for m in ("fd", "fdsl")}
    made = Table(title=f"leave one category out, {k}-shot: FD map / FDSL")
    made.add_column("left out")
    for name in SHOWN:
        made.add_column(name.replace("_", " "), justify="right")
    for category, f in [*figures.items(), ("mean", means)]:
        if category == "mean":
            made.add_section()
        made.add_row(category, *(f"{100 * f['fd'][n]:.1f} / {100 * f['fdsl'][n]:.1f}" for n in SHOWN))
    return made


if __name__ == "__main__":
    cli.call(lambda: cli.job(main))
