"""Many results to one table: mean and standard deviation over reference seeds, for every combination of what varies."""

import csv
import json
import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from fdsl.record import RESULTS_FILE
from fdsl.results import MEAN, METRICS

log = logging.getLogger(__name__)

METHODS = ("fdsl", "fd")
SAME_SETUP = ("seed", "seeds", "run_dir", "progress", "store", "retrain", "force", "train", "ckpt", "cache", "logger")
"""Of a configuration: what makes no other setup. The table is a mean over reference seeds."""

SAID_BY_NAME = ("data", "aux", "trainer")
"""Groups of keys that stand in the table by the name of the dataset, or not at all."""

Figure = tuple[float, float | None]
"""Mean, and standard deviation with n - 1; None of a single seed."""


@dataclass(frozen=True)
class Row:
    """One setup.

    Attributes:
        setup: value of every key that varies among all results.
        seeds: reference seeds that the figures are over, sorted.
        figures: of each method, each metric.
    """

    setup: dict[str, Any]
    seeds: list[int]
    figures: dict[str, dict[str, Figure]]


def collect(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Read every ``results.json`` below folders; what cannot be read is named and left out."""
    found: list[dict[str, Any]] = []
    for path in sorted({path for folder in folders for path in folder.rglob(RESULTS_FILE)}):
        try:
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
            _ = content["metrics"][MEAN], content["baseline"]["fd"][MEAN], content["config"]["seed"]
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s: no result that this version reads (%r); left out", path, error)
            continue
        found.append(content)
    return found


def setup_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result was made with, flat, but for what makes no other setup."""
    config = {k: v for k, v in result["config"].items() if k not in (*SAME_SETUP, *SAID_BY_NAME)}
    made = {"dataset": result["references"]["dataset"], "auxiliary": result["head"]["trained"].get("dataset")}
    made["categories"] = ",".join(sorted(c for c in result["metrics"] if c != MEAN))
    return made | _flat(config)


def rows(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Group results that differ in nothing but their references, in the order of what varies."""
    setups = [setup_of(result) for result in results]
    varying = _varying(setups)
    groups: dict[str, list[int]] = {}
    for i, setup in enumerate(setups):
        groups.setdefault(repr([setup.get(key) for key in varying]), []).append(i)
    made: list[Row] = []
    for members in groups.values():
        by_seed = {results[i]["config"]["seed"]: results[i] for i in members}  # a later run of the same replaces one
        figures = {m: {n: _figure([_mean(r, m)[n] for r in by_seed.values()]) for n in METRICS} for m in METHODS}
        made.append(Row({key: setups[members[0]].get(key) for key in varying}, sorted(by_seed), figures))
    return sorted(
        made, key=lambda row: [(str(type(v)), v if isinstance(v, int | str) else str(v)) for v in row.setup.values()]
    )


def table(found: Sequence[Row], title: str) -> Table:
    """Lay out the configured method's figures in percent."""
    made = Table(title=title, caption="percent, mean \u00b1 standard deviation over reference seeds (n)")
    for key in found[0].setup if found else ():
        made.add_column(key)
    for name in (*METRICS, "FD image_auroc", "FD pixel_ap"):
        made.add_column(name.replace("_", "\n"), justify="right")
    made.add_column("n", justify="right")
    for row in found:
        own, fd = row.figures["fdsl"], row.figures["fd"]
        shown = [own[name] for name in METRICS] + [fd["image_auroc"], fd["pixel_ap"]]
        made.add_row(*(f"{v}" for v in row.setup.values()), *(percent(figure) for figure in shown), f"{len(row.seeds)}")
    return made


def write_table(path: Path, found: Sequence[Row]) -> None:
    """Write one line for each setup and method, in the units of ``results.json``."""
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        columns = [f"{name}_{kind}" for name in METRICS for kind in ("mean", "std")]
        lines.writerow([*(found[0].setup if found else ()), "method", "seeds", *columns])
        for row in found:
            for method, figures in row.figures.items():
                values = ["" if v is None else f"{v:.6f}" for name in METRICS for v in figures[name]]
                lines.writerow([*row.setup.values(), method, " ".join(map(str, row.seeds)), *values])
    part.replace(path)


def percent(figure: Figure) -> str:
    """Write a figure in percent, with its deviation if it has one."""
    mean, std = figure
    return f"{100 * mean:.1f}" if std is None else f"{100 * mean:.1f} \u00b1 {100 * std:.1f}"


def _varying(setups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values differ, without those that vary just as an earlier one does."""
    found: dict[tuple[int, ...], str] = {}
    for key in dict.fromkeys(key for setup in setups for key in setup):
        values = [repr(setup.get(key)) for setup in setups]
        found.setdefault(tuple(values.index(value) for value in values), key)
    return [key for pattern, key in found.items() if any(pattern)]


def _mean(result: Mapping[str, Any], method: str) -> dict[str, float]:
    found = (result["metrics"] if method == "fdsl" else result["baseline"]["fd"])[MEAN]
    return {name: float("nan") if found[name] is None else float(found[name]) for name in METRICS}


def _figure(values: Sequence[float]) -> Figure:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            made.update(_flat(value, f"{prefix}{key}."))
        else:
            made[f"{prefix}{key}"] = value
    return made


def _ordered(value: Any) -> tuple[bool, Any]:
    """Numbers by size and before anything else, which goes by its name."""
    number = isinstance(value, int | float)
    return not number, value if number else str(value)
