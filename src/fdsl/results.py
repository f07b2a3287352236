"""The record of one run: ``results.json``, ``results.csv``, ``scores.csv`` and the printed table."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from fdsl.category import CategoryResult, Metrics

SCHEMA = 1
METRICS = ("image_auroc", "image_f1max", "image_ap", "pixel_auroc", "pixel_f1max", "pixel_ap", "pixel_aupro")
"""Names as in the paper's table; values lie in [0, 1]."""

MEAN = "mean"
BESIDE = ("image_auroc", "pixel_ap")
"""What the printed table shows of the training-free baseline."""


def mean_over(classes: Mapping[str, Metrics]) -> Metrics:
    """Return the unweighted mean over classes; NaN where a class has no figure, rather than a mean of the rest."""
    return {name: math.fsum(m[name] for m in classes.values()) / len(classes) for name in METRICS}


def by_method(results: Mapping[str, CategoryResult]) -> dict[str, dict[str, Metrics]]:
    """Rearrange results to ``{method: {"mean": ..., class: ...}}``."""
    methods = next(iter(results.values())).metrics
    tables = {m: {category: r.metrics[m] for category, r in results.items()} for m in methods}
    return {m: {MEAN: mean_over(classes), **classes} for m, classes in tables.items()}


def document(results: Mapping[str, CategoryResult], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Compose the content of ``results.json``.

    Args:
        results: of each category tested so far.
        facts: what the figures depend on: configuration, versions, references, weights, resolution, timings.
    """
    tables = by_method(results)
    return {
        "schema": SCHEMA,
        "metrics": tables["fdsl"],
        "baseline": {"fd": tables["fd"]},
        "images": {
            c: {"normal": int((r.labels == 0).sum()), "defective": int(r.labels.sum())} for c, r in results.items()
        },
        "warnings": [text for c, r in results.items() for text in remarks(c, r)],
        **facts,
    }


def remarks(category: str, result: CategoryResult) -> list[str]:
    """Say what a reader of a category's figures must know."""
    made: list[str] = []
    defective = int(result.labels.sum())
    if defective in (0, len(result.labels)):
        made.append(f"{category}: only {'defective' if defective else 'normal'} images, so its metrics are undefined")
    if result.hidden_defects:
        made.append(
            f"{category}: {result.hidden_defects} of {defective} defective images show no defect on the measured map: "
            "it lies outside the centre crop (data.fit=stretch keeps the whole image) or is smaller than a map pixel"
        )
    return made


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON (NaN becomes null) in one step, so that no reader meets half a file."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def write_csv(path: Path, results: Mapping[str, CategoryResult]) -> None:
    """Write one row for each method and class."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["method", "category", *METRICS])
        for method, classes in by_method(results).items():
            rows.writerows([method, c, *(f"{metrics[n]:.6f}" for n in METRICS)] for c, metrics in classes.items())


def write_scores(path: Path, results: Mapping[str, CategoryResult]) -> None:
    """Write one row for each tested image: category, path, label and every method's image score."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        methods = list(next(iter(results.values())).image_scores)
        rows.writerow(["category", "path", "label", *methods])
        for category, result in results.items():
            columns = [result.image_scores[m].tolist() for m in methods]
            for image, label, *scores in zip(result.paths, result.labels.tolist(), *columns, strict=True):
                rows.writerow([category, image, label, *(f"{s:.6f}" for s in scores)])


def table(results: Mapping[str, CategoryResult], title: str) -> Table:
    """Lay out per-class figures and their mean, in percent, beside the training-free baseline's."""
    made = Table(title=title, caption="percent; FD: the training-free discrepancy map on the same references")
    made.add_column("category")
    for name in (*METRICS, *(f"FD {n}" for n in BESIDE)):
        made.add_column(name.replace("_", "\n"), justify="right")
    tables = by_method(results)
    for category in [*results, MEAN]:
        if category == MEAN:
            made.add_section()
        own, fd = tables["fdsl"][category], tables["fd"][category]
        cells = [own[n] for n in METRICS] + [fd[n] for n in BESIDE]
        made.add_row(category, *(f"{100 * value:.1f}" for value in cells))
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
