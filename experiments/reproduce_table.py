"""The paper's table, ours beside the published rows: ``make reproduce-table``.

Checks first that datasets and weights are there, and says what the run will take; then runs ``train.py +sweep=...``,
which goes on where an earlier one stopped; then writes the table (Markdown, CSV, LaTeX) and a figure::

    python experiments/reproduce_table.py --preset quick --out outputs/table
    python experiments/reproduce_table.py --preset paper --table-only    # of what is finished so far

Everything else is an override as ``train.py`` takes it.
"""

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from published import Cell, by_setup, figure, read_published, write_csv, write_latex, write_markdown

from datamodules.base import FewShotDataModule
from fdsl import cli, summary
from fdsl.build import built, check_backbone, prepared
from fdsl.config import Config, register, typed
from fdsl.errors import ConfigError, FDSLError

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = {
    "paper": {"mvtec": "paper_mvtec", "visa": "paper_visa"},
    "quick": {"mvtec": "quick_mvtec", "visa": "quick_visa"},
}
DATASETS = {"mvtec": "mvtec", "visa": "visa", "synthetic_mvtec": "mvtec", "synthetic_visa": "visa"}
"""Column of the table by the name of the tested dataset."""


@dataclass(frozen=True)
class Plan:
    """What one direction of the sweep will take.

    Attributes:
        config: of its job.
        images: tested.
        bytes: of features that the cache will be given.
        seconds: of encoding on this machine.
    """

    config: Config
    images: int
    bytes: int
    seconds: float


def planned(preset: str, experiment: str, overrides: list[str], problems: dict[str, str]) -> Plan | None:
    """Check everything that one direction needs, and time its backbone on one image.

    Returns:
        the plan; None where something is missing, which is then among the problems with how to get it.
    """
    given = [f"experiment={experiment}", f"+sweep={preset}", "run_dir=unused", *overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = typed(compose("config", given))
    grid = check_backbone(config)
    parts = {"data": (prepared, config.data), "aux": (prepared, config.aux), "weights": (built, config.backbone.model)}
    found: dict[str, Any] = {}
    for name, (make, node) in parts.items():
        try:
            found[name] = make(node)
        except FDSLError as error:
            problems.setdefault(str(error), f"{experiment}, {name}")
    if len(found) < len(parts):
        return None
    target: FewShotDataModule = found["data"]
    backbone = found["weights"]
    device = "cuda" if torch.cuda.is_available() and config.trainer["accelerator"] != "cpu" else "cpu"
    backbone.to(device)
    image = torch.zeros(1, 3, config.backbone.image_size, config.backbone.image_size, device=device)
    tokens = grid * grid
    if config.winmode != "nan":
        windows = ((grid - config.win_size) // config.win_stride + 1) ** 2
        tokens += windows * config.win_size**2
    times = []
    for _ in range(3):
        start = time.perf_counter()
        made = backbone(image).tokens
        times.append(float(made.sum() * 0) + time.perf_counter() - start)
    images = sum(len(paths) for paths in target.test_paths().values())
    cached = config.cache.features is not None and config.winmode != "onlywin"
    size = made.numel() * made.element_size() if cached else 0
    return Plan(config, images, images * size, images * min(times) * tokens / (grid * grid))


def check(preset: str, overrides: list[str]) -> None:
    """Say all that is missing before anything starts; else what the sweep takes.

    Raises:
        ConfigError: naming every problem of both directions.
    """
    plans: list[Plan] = []
    problems: dict[str, str] = {}
    for experiment in EXPERIMENTS[preset].values():
        plan = planned(preset, experiment, overrides, problems)
        plans += [plan] if plan is not None else []
    if problems:
        lines = [f"{experiment}: {text}" for text, experiment in problems.items()]
        raise ConfigError("the table needs what is not there:\n" + "\n".join(lines))
    seconds, size = sum(plan.seconds for plan in plans), sum(plan.bytes for plan in plans)
    print(f"{sum(plan.images for plan in plans)} test images, each encoded once for all settings of a direction:")
    print(f"  encoding them takes about {seconds / 60:.0f} min here; training and scoring come on top")
    config = plans[0].config
    if config.cache.features is not None:
        place = Path(config.cache.features).expanduser()
        parent = next(p for p in (place, *place.parents) if p.exists())
        kept, free = min(size, config.cache.limit_gb * 1e9), shutil.disk_usage(parent).free
        print(f"  features take {kept / 1e9:.1f} GB of disk in {place} ({free / 1e9:.0f} GB are free)")
        if kept > free:
            print("  which is more than is free: the cache will hold what fits; cache.features=null keeps none")


def expected(preset: str, overrides: list[str]) -> dict[str, dict[str, list[int]]]:
    """Return the shots and seeds that a full table has, by dataset."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [f"+sweep={preset}", *overrides])
    shots = [config.kshots] if isinstance(config.kshots, int) else list(config.kshots)
    seeds = [config.seed] if config.seeds is None else list(config.seeds)
    return {dataset: {"kshots": shots, "seeds": seeds} for dataset in EXPERIMENTS[preset]}


def ours(results: list[dict[str, Any]]) -> dict[tuple[int, str], summary.Row]:
    """Pick our rows by (shots, column).

    Raises:
        ConfigError: if more than one setup gives the same cell.
    """
    found: dict[tuple[int, str], summary.Row] = {}
    for key in sorted({(int(r["config"]["kshots"]), DATASETS.get(r["references"]["dataset"], "")) for r in results}):
        of_cell = [r for r in results if (r["config"]["kshots"], DATASETS.get(r["references"]["dataset"])) == key]
        rows = summary.rows(of_cell)
        if len(rows) > 1:
            raise ConfigError(
                f"{key[0]}-shot on {key[1]}: results of several setups, which differ in {', '.join(rows[0].setup)}; "
                "choose another --out"
            )
        if key[1]:
            found[key] = rows[0]
    return found


def main() -> None:
    """Check, run, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(EXPERIMENTS), default="paper")
    parser.add_argument("--out", type=Path, default=None, help="default outputs/table-PRESET")
    parser.add_argument("--table-only", action="store_true", help="test nothing, make the table of what is finished")
    parser.add_argument("--check-only", action="store_true", help="say what is missing and what the sweep takes")
    given, overrides = parser.parse_known_args()
    OverridesParser.create().parse_overrides(overrides)
    out = given.out or Path("outputs") / f"table-{given.preset}"
    register()
    status = 0
    if not given.table_only:
        check(given.preset, [each for each in overrides if not each.startswith("hydra")])
        if given.check_only:
            return
        sweep = [f"+sweep={given.preset}", *overrides, f"hydra.sweep.dir='{out / 'runs'}'"]
        status = subprocess.run([sys.executable, str(ROOT / "train.py"), *sweep, "-m"]).returncode
    rows = ours(summary.collect([out / "runs"]))
    cells = by_setup(read_published(), {key: Cell.of(row) for key, row in rows.items()})
    missing = missing_of(expected(given.preset, [o for o in overrides if not o.startswith("hydra")]), rows)
    stand_in = given.preset == "quick"
    write_markdown(out / "table.md", cells, missing, stand_in)
    write_csv(out / "table.csv", cells)
    write_latex(out / "table.tex", cells, stand_in)
    figure(out / "table.png", cells, stand_in)
    print((out / "table.md").read_text("utf-8"))
    print(f"table   {out / 'table.md'}, .csv, .tex, .png")
    if status != 0:
        cli.fail("the sweep did not finish, so the table is partial; start the same command again")


def missing_of(wanted: dict[str, dict[str, list[int]]], rows: dict[tuple[int, str], summary.Row]) -> list[str]:
    """Name every shot and seed that has no result yet."""
    made: list[str] = []
    for dataset, lists in wanted.items():
        for k in lists["kshots"]:
            row = rows.get((k, dataset))
            lacking = [seed for seed in lists["seeds"] if row is None or seed not in row.seeds]
            if lacking:
                made.append(f"{dataset}, {k}-shot: no result of seed {', '.join(map(str, lacking))}")
    return made


if __name__ == "__main__":
    cli.call(lambda: cli.job(main))
