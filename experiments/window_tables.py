"""Tables and chart of ``local_windows.py``."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

MAPS = ("asl", "fd")
SHOWN = ("image_auroc", "pixel_ap", "pixel_aupro")


@dataclass(frozen=True)
class Variant:
    """One way to look at windows; ``stride`` 0 is the whole image alone."""

    kshots: int
    stride: int = 0
    search: str = "own"
    top_m: int = 0

    @property
    def modes(self) -> tuple[str, ...]:
        """Ways to use its maps: fused with the whole image's, or alone."""
        return ("mul", "only") if self.stride else ("",)

    @property
    def name(self) -> str:
        """Key in the JSON file."""
        if not self.stride:
            return f"{self.kshots}/nan"
        return f"{self.kshots}/stride{self.stride}/{self.search}{self.top_m or ''}"


def mean(figures: dict[str, Any], categories: list[str], key: str, metric: str) -> float:
    """Mean of one method's metric over categories, in percent."""
    return 100 * sum(figures[c]["metrics"][key][metric] for c in categories) / len(categories)


def average(figures: dict[str, Any], part: str, key: str) -> float:
    """Mean of something else over all categories."""
    return sum(f[part][key] for f in figures.values()) / len(figures)


def memory_table(arguments: argparse.Namespace, figures: dict[str, Any]) -> list[str]:
    """What the index memory loses, as Markdown."""
    categories = list(figures)
    lines = [
        f"Memory at stride {arguments.memory_stride}, winmode mul, mean over {len(categories)} categories, percent "
        f"({', '.join(SHOWN)}; learned map | FD map):",
        "",
        "| k | memory | learned map | FD map | bank MB | search and head, s an image |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for k in arguments.kshots:
        rows = [Variant(k, arguments.memory_stride, "own", m) for m in arguments.top_m]
        rows += [Variant(k, arguments.memory_stride, "union", 1), Variant(k, arguments.memory_stride, "full")]
        for v in rows:
            cells = [
                " / ".join(f"{mean(figures, categories, f'{v.name}/mul/{m}', n):.1f}" for n in SHOWN) for m in MAPS
            ]
            size = average(figures, "bank_bytes", v.name) / 1e6
            seconds = average(figures, "seconds_per_image", v.name)
            label = f"{v.search} {v.top_m or ''}".strip()
            lines.append(f"| {k} | {label} | {cells[0]} | {cells[1]} | {size:.0f} | {seconds:.2f} |")
    return lines


def window_table(arguments: argparse.Namespace, figures: dict[str, Any]) -> list[str]:
    """Whether windows pay, as Markdown: all categories in the mean, and each alone."""
    lines = ["pixel AP and image AUROC, percent:", ""]
    groups = {"mean": list(figures), **{c: [c] for c in figures}}
    lines += [f"| k | windows | map | {' | '.join(groups)} | s an image |", "| --- " * (4 + len(groups)) + "|"]
    finest = min(arguments.strides)
    for k in arguments.kshots:
        rows: list[tuple[str, Variant, str]] = [("nan", Variant(k), "")]
        rows += [
            (f"{mode} {s}", Variant(k, s, "own", arguments.default_m), short)
            for s in arguments.strides
            for mode, short in (("mul", "mul"), ("onlywin", "only"))
        ]
        for label, v, mode in rows:
            # Windows of a coarser stride are a share of the finest one's.
            side = {s: (arguments.grid - arguments.win_size) // s + 1 for s in (finest, v.stride or finest)}
            share = (side[v.stride] / side[finest]) ** 2 if v.stride else 0.0
            encode = average(figures, "seconds_per_image", "encode/windows") * share
            whole = 0.0 if mode == "only" else average(figures, "seconds_per_image", "encode/whole")
            seconds = whole + encode + average(figures, "seconds_per_image", v.name)
            for m in MAPS:
                key = f"{v.name}/{mode}/{m}"
                cells = [
                    f"{mean(figures, g, key, 'pixel_ap'):.1f} / {mean(figures, g, key, 'image_auroc'):.1f}"
                    for g in groups.values()
                ]
                lines.append(f"| {k} | {label} | {m} | {' | '.join(cells)} | {seconds:.2f} |")
    return lines


def chart(arguments: argparse.Namespace, figures: dict[str, Any], path: Path) -> None:
    """Draw pixel AP and image AUROC without windows and with ever more of them."""
    drawn = Figure(figsize=(10, 4), layout="constrained")
    axes = drawn.subplots(1, 2)
    categories, strides = list(figures), sorted(arguments.strides, reverse=True)
    for axis, metric in zip(axes, ("pixel_ap", "image_auroc"), strict=True):
        for colour, k in zip(("tab:blue", "tab:orange", "tab:green"), arguments.kshots, strict=False):
            for line, m in (("-", "asl"), ("--", "fd")):
                keys = [f"{k}/nan//{m}"]
                keys += [f"{Variant(k, s, 'own', arguments.default_m).name}/mul/{m}" for s in strides]
                values = [mean(figures, categories, key, metric) for key in keys]
                axis.plot(range(len(keys)), values, line, marker="o", color=colour, label=f"{k}-shot {m}")
        axis.set_xlabel("window stride, patches")
        axis.set_xticks(range(len(strides) + 1), ["no windows", *map(str, strides)])
        axis.set_title(metric.replace("_", " ") + ", percent")
    axes[1].legend(fontsize=8)
    drawn.savefig(path, dpi=100)
