"""The published figures of the paper's table, and ours beside them, as Markdown, CSV, LaTeX and a figure.

``published.csv`` holds every figure of the paper's main table (FDSL, 2025), in percent: mean and standard deviation.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import matplotlib

from fdsl.summary import Row

matplotlib.use("Agg")
from matplotlib import pyplot as plt

OURS, FD = "FDSL (this run)", "FD map (this run)"
REFERENCE = "FDSL"
TITLES = {"mvtec": "MVTec AD", "visa": "VisA"}
SHOWN = ("image_auroc", "image_f1max", "image_ap", "pixel_auroc", "pixel_f1max", "pixel_ap", "pixel_aupro")
FAR = "\u2020"
STAND_IN = (
    "Our rows are of the synthetic pair, which stands in for the datasets: differences to the published rows mean "
    "nothing here and only show that the table works."
)

Figures = dict[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Cell:
    """Figures of one method on one dataset at one k, in percent.

    Attributes:
        figures: mean and standard deviation (None where there is none) by metric.
        seeds: how many draws of references; None where the paper does not say.
        fd: ours only: the training-free map's.
    """

    figures: Figures
    seeds: int | None = None
    fd: Figures | None = None

    @classmethod
    def of(cls, row: Row) -> Self:
        """Take our figures from a row of a sweep's table."""
        both = [
            {n: (100 * m, None if s is None else 100 * s) for n, (m, s) in row.figures[w].items()}
            for w in ("fdsl", "fd")
        ]
        return cls(both[0], len(row.seeds), both[1])


Table = dict[tuple[int, str], dict[str, Cell]]
"""By (shots, method), by dataset."""


def read_published() -> Table:
    """Read the published figures, in the paper's order of methods."""
    path = Path(__file__).with_name("published.csv")
    made: dict[tuple[int, str], dict[str, Figures]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            std = float(line["std"]) if line["std"] else None
            of = made.setdefault((int(line["kshots"]), line["method"]), {}).setdefault(line["dataset"], {})
            of[line["metric"]] = float(line["mean"]), std
    return {key: {dataset: Cell(f) for dataset, f in by.items()} for key, by in made.items()}


def by_setup(published: Table, ours: Mapping[tuple[int, str], Cell]) -> Table:
    """Put ours below the published rows of each k."""
    made: Table = {}
    for k in sorted({k for k, _ in published} | {k for k, _ in ours}):
        made |= {(each, m): cells for (each, m), cells in published.items() if each == k}
        of_k = {dataset: cell for (each, dataset), cell in ours.items() if each == k}
        if of_k:
            made[k, FD] = {d: Cell(c.fd or {}, c.seeds) for d, c in of_k.items()}
            made[k, OURS] = of_k
    return made


def difference(table: Table, k: int, dataset: str, metric: str) -> tuple[float, bool] | None:
    """Return ours minus published FDSL, and whether it lies outside two published standard deviations.

    None where either has no figure.
    """
    own, other = (table.get((k, m), {}).get(dataset, Cell({})).figures.get(metric) for m in (OURS, REFERENCE))
    if own is None or other is None or own[0] != own[0]:
        return None
    off = own[0] - other[0]
    return off, other[1] is not None and abs(off) > 2 * other[1]


def lines(table: Table, plus: str) -> list[list[str]]:
    """Lay the table out: a line for each k and method, and below ours its difference to published FDSL."""
    made: list[list[str]] = []
    for (k, method), cells in table.items():
        made.append([str(k), method, *(_shown(cells, d, n, plus) for d in TITLES for n in SHOWN)])
        if method == OURS and (k, REFERENCE) in table:
            offs = [difference(table, k, d, n) for d in TITLES for n in SHOWN]
            made.append(
                [str(k), "difference", *("" if o is None else f"{o[0]:+.1f}{FAR if o[1] else ''}" for o in offs)]
            )
    return made


def write_markdown(path: Path, table: Table, missing: Sequence[str], stand_in: bool) -> None:
    """Write the table for reading, with what is missing from it."""
    head = ["k", "method", *(f"{TITLES[d]} {n.replace('_', ' ')}" for d in TITLES for n in SHOWN)]
    text = [_row(head), _row(["---"] * len(head)), *(_row(line) for line in lines(table, " \u00b1 "))]
    text += [
        "",
        f"Percent, mean \u00b1 standard deviation over draws of references. {FAR}: further from published FDSL than "
        "two published standard deviations. Published rows: the paper's main table; it has no AUPRO.",
    ]
    text += ["", STAND_IN] if stand_in else []
    text += ["", "Missing:", "", *(f"- {each}" for each in missing)] if missing else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def write_csv(path: Path, table: Table) -> None:
    """Write a line for each figure, as the published ones stand in ``published.csv``, with ours' difference."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["kshots", "method", "dataset", "metric", "mean", "std", "seeds", "difference", "beyond_2_std"])
        for (k, method), cells in table.items():
            for dataset, cell in cells.items():
                for metric, (mean, std) in cell.figures.items():
                    off = difference(table, k, dataset, metric) if method == OURS else None
                    last = ["", ""] if off is None else [f"{off[0]:.2f}", str(off[1]).lower()]
                    spread = "" if std is None else f"{std:.2f}"
                    rows.writerow([k, method, dataset, metric, f"{mean:.2f}", spread, cell.seeds or "", *last])


def write_latex(path: Path, table: Table, stand_in: bool) -> None:
    """Write a tabular for a paper (booktabs)."""
    groups = " & ".join(rf"\multicolumn{{{len(SHOWN)}}}{{c}}{{{TITLES[d]}}}" for d in TITLES)
    names = " & ".join(n.replace("_", " ") for _ in TITLES for n in SHOWN)
    text = [rf"\begin{{tabular}}{{ll{'c' * len(SHOWN) * len(TITLES)}}}", r"\toprule"]
    text += [rf"& & {groups} \\", rf"$k$ & method & {names} \\"]
    before = ""
    for line in lines(table, r" $\pm$ "):
        text += [r"\midrule"] if line[0] != before else []
        before = line[0]
        text.append(" & ".join(cell.replace(FAR, r"$^\dagger$") for cell in line) + r" \\")
    text += [r"\bottomrule", r"\end{tabular}"]
    note = f"% {STAND_IN}\n" if stand_in else ""
    path.write_text(note + "\n".join(text) + "\n", encoding="utf-8")


def figure(path: Path, table: Table, stand_in: bool) -> None:
    """Draw metrics against shots: published FDSL, ours, and the training-free map."""
    shown = ("image_auroc", "pixel_ap")
    drawn, axes = plt.subplots(len(shown), len(TITLES), figsize=(9, 6.5), squeeze=False)
    for line, metric in zip(axes, shown, strict=True):
        for axis, (dataset, title) in zip(line, TITLES.items(), strict=True):
            for method, style in ((REFERENCE, "--"), (OURS, "-"), (FD, ":")):
                points = [
                    (k, c[dataset].figures[metric])
                    for (k, m), c in table.items()
                    if m == method and dataset in c and metric in c[dataset].figures
                ]
                label = f"{method}, published" if method == REFERENCE else method
                axis.errorbar(
                    [k for k, _ in points],
                    [f[0] for _, f in points],
                    yerr=[f[1] or 0 for _, f in points],
                    fmt=style,
                    marker="o",
                    capsize=3,
                    label=label,
                )
            axis.set(title=title, xlabel="shots", ylabel=f"{metric.replace('_', ' ')}, percent")
            axis.set_xticks(sorted({k for k, _ in table}))
    axes[0][0].legend(fontsize=8)
    if stand_in:
        drawn.suptitle("synthetic stand-in beside the published figures: not comparable", fontsize=10)
    drawn.tight_layout()
    drawn.savefig(path, dpi=130)
    plt.close(drawn)


def _shown(cells: Mapping[str, Cell], dataset: str, metric: str, plus: str) -> str:
    mean, std = cells[dataset].figures.get(metric, (float("nan"), None)) if dataset in cells else (float("nan"), None)
    if mean != mean:
        return ""
    return f"{mean:.1f}" if std is None else f"{mean:.1f}{plus}{std:.1f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
