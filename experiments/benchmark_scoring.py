"""What scoring costs beside the backbone, in ratios of one run: ``make benchmark``.

    python experiments/benchmark_scoring.py backbone=vit_s_pypi --out outputs/benchmark

Any backbone of ``conf/backbone`` whose image size the windows fit (else set ``win_size`` and ``win_stride``), on random
images, CPU or GPU (``--device cuda``). Measures the time of scoring beside that of the backbone and beside the ratio of
their arithmetic; against a plain implementation (``plain.py``); the share of the machine's matrix product rate that the
exact search reaches; windows against whole images; peak memory; and how all of it grows. Writes JSON, a Markdown table
and a chart. Bars are printed with what was measured, met or not. Nothing else may run beside it: ratios of times change
with the load.
"""

import argparse
import gc
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import plain
import torch
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from scoring_bench import MAP_SIZE, Bench, Row

from fdsl import cli
from fdsl.backbones import Encoding
from fdsl.build import built, check_backbone, make_detector
from fdsl.config import register, typed
from fdsl.discrepancy import nearest
from fdsl.errors import ConfigError
from fdsl.local_features import LocalFeatures
from fdsl.scoring import score_maps
from fdsl.windows import covers, window_boxes

ROOT = Path(__file__).resolve().parent.parent


def measure_rates(b: Bench) -> tuple[list[Row], dict[str, float]]:
    """Exact full search against the machine's matrix product."""
    side = 2048
    square = torch.randn(side, side, device=b.device)
    width, size = b.backbone.spec.width, 13 * 13
    query, bank = b.unit(32 * size, width), b.unit(169 * size, width)
    matmul, search = b.seconds(lambda: square @ square, lambda: nearest(query, bank))
    rates = {
        "matmul_gflops": 2 * side**3 / matmul / 1e9,
        "search_gflops": 2 * len(query) * len(bank) * width / search / 1e9,
    }
    note = f"{rates['search_gflops']:.0f} of {rates['matmul_gflops']:.0f} GFLOP/s ({side} x {side} product)"
    return [
        Row("exact full search / matmul rate", rates["search_gflops"] / rates["matmul_gflops"], 0.7, False, note)
    ], rates


def measure_whole(b: Bench) -> list[Row]:
    """Winmode nan: scoring beside the backbone, beside their arithmetic, and against the plain way."""
    n = b.grid**2
    image, query = b.images(1), b.query(1, n)
    rows = []
    for k in (1, 4):
        bank = b.bank(k, n)
        flat = bank.tokens.flatten(1, 2)
        encode, ours, theirs, product = b.seconds(
            lambda: b.backbone(image),
            lambda bank=bank: b.score_whole(query, bank),
            lambda flat=flat: score_maps(plain.score_whole(b.head, query.tokens, flat), MAP_SIZE),
            lambda flat=flat: torch.bmm(query.tokens[:, 0], flat.mT),
        )
        ratio = b.scoring_arithmetic(n, k * n) / b.backbone_arithmetic(1, b.grid)
        note = f"ratio of arithmetic {ratio:.3f}"
        rows.append(Row(f"nan, {k}-shot: scoring / backbone", ours / encode, 1.5 * ratio + 0.03, True, note))
        bound = f"the matrix product alone is {product / ours:.2f} of ours, {product / theirs:.2f} of plain"
        rows.append(Row(f"nan, {k}-shot: plain / ours", theirs / ours, 1.5, False, bound))
    return rows


def measure_windows(b: Bench, local: LocalFeatures) -> list[Row]:
    """Winmode mul: the window branch's scoring beside the encoding of windows, and against the plain way."""
    patch, size = b.backbone.spec.patch_size, local.size
    boxes = window_boxes(b.grid, size, local.stride)
    count = len(boxes)
    part = min(local.batch_size, count)
    windows, whole = b.images(part, size * patch), b.images(2)
    encode_part, encode_whole = b.seconds(lambda: b.backbone(windows), lambda: b.backbone(whole))
    per_token = (encode_part / (part * size**2)) / (encode_whole / (2 * b.grid**2))
    rows = [Row("encoding a window's token / a whole image's", per_token, 1.15, True)]
    encode = encode_part / part * count
    query = b.query(count, size**2)
    few = Encoding(query.tokens[:, :part].clone(), query.image_feature[:part])
    for k in (1, 4):
        bank = b.bank(k * count, size**2)
        own = b.seconds(lambda bank=bank: b.score_windows(local, query, bank))[0]
        arithmetic = b.scoring_arithmetic(count * size**2, local.top_m * size**2)
        ratio = arithmetic / b.backbone_arithmetic(count, size)
        note = f"top_m {local.top_m}; ratio of arithmetic {ratio:.3f}"
        rows.append(Row(f"mul own, {k}-shot: scoring / encoding windows", own / encode, 0.15, True, note))
        # All windows cost the same: one batch of them is timed, and the rest of the image counted by it.
        flat = bank.tokens.flatten(1, 2)
        full, theirs = b.with_repeats(1 if k > 1 else 2).seconds(
            lambda bank=bank: b.head.classify(bank.match(few.tokens).deviation),
            lambda flat=flat: plain.score_windows(b.head, few.tokens, flat),
        )
        scores = torch.rand(len(query.tokens), count, size**2, device=b.device)
        lay = b.seconds(lambda scores=scores: plain.stitch(b.head, scores, boxes, b.grid))[0]
        theirs = theirs / part * count + lay
        note = f"{part} of {count} windows timed"
        rows.append(Row(f"mul full, {k}-shot: plain / ours", theirs / (full / part * count + lay), 1.5, False, note))
        rows.append(Row(f"mul own, {k}-shot: plain full / ours", theirs / own, 50 if k == 4 else 0, False, note))
        del bank, flat
        gc.collect()
    return rows


def measure_growth(b: Bench, local: LocalFeatures) -> dict[str, dict[str, Any]]:
    """Seconds as images, references, windows and side length grow, with the exponent of each."""
    n, size, patch = b.grid**2, local.size, b.backbone.spec.patch_size
    grown: dict[str, dict[str, Any]] = {}

    def record(name: str, sizes: list[float], seconds: list[float]) -> None:
        x, y = torch.tensor(sizes).log(), torch.tensor(seconds).log()
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
        grown[name] = {"sizes": sizes, "seconds": seconds, "exponent": round(slope, 2)}

    one = b.bank(1, n)
    counts = [1, 2, 4, 8]
    queries = [b.query(c, n) for c in counts]
    record("images: scoring, nan", counts, b.seconds(*(lambda q=q: b.score_whole(q, one) for q in queries)))
    banks = [b.bank(k, n) for k in counts]
    record("k: scoring, nan", counts, b.seconds(*(lambda r=r: b.score_whole(queries[0], r) for r in banks)))
    strides = [s for s in range(local.stride, size + 1) if covers(b.grid, size, s)][:3]
    places = {s: len(window_boxes(b.grid, size, s)) for s in reversed(strides)}
    scored, encoded = [], []
    for stride, count in places.items():
        layout = replace(local, stride=stride)
        bank, query = b.bank(count, size**2), b.query(count, size**2)
        scored += b.seconds(lambda y=layout, q=query, r=bank: b.score_windows(y, q, r))
        pixels = b.images(count, size * patch)
        encoded += b.with_repeats(1).seconds(lambda p=pixels: [b.backbone(w) for w in p.split(local.batch_size)])
    record("windows: scoring, own", list(places.values()), scored)
    record("windows: encoding", list(places.values()), encoded)
    banks = [b.bank(k * max(places.values()), size**2) for k in (1, 2, 4)]
    windows = b.query(max(places.values()), size**2)
    record("k: scoring, own", [1, 2, 4], b.seconds(*(lambda r=r: b.score_windows(local, windows, r) for r in banks)))
    grids = [b.grid // 4, b.grid // 2, b.grid]
    images = [b.images(1, g * patch) for g in grids]
    pairs = [(b.query(1, g * g), b.bank(4, g * g)) for g in grids]
    record("side: scoring, nan, 4-shot", grids, b.seconds(*(lambda p=p: b.score_whole(*p) for p in pairs)))
    record("side: backbone", grids, b.seconds(*(lambda i=i: b.backbone(i) for i in images)))
    return grown


def measure_memory(b: Bench, overrides: list[str], few: int, many: int) -> tuple[list[Row], dict[str, float]]:
    """Peak memory of test passes, each in a process of its own (``memory_of_a_test.py``)."""

    def peak(images: int, *arguments: str) -> float:
        command = [sys.executable, str(ROOT / "experiments/memory_of_a_test.py"), "--images", str(images)]
        command += ["--device", str(b.device), *arguments, *overrides]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ConfigError(f"memory_of_a_test.py failed: {done.stderr.strip()}")
        return float(json.loads(done.stdout.splitlines()[-1])["peak_gigabytes"])

    # A setting named twice is the later one's; the overrides of the command line come before.
    found: dict[str, float] = {}
    rows: list[Row] = []
    for kind, options, note in (("scoring", [], "nothing kept"), ("a test", ["--metrics"], "exact metrics keep maps")):
        low, high = (peak(n, "--small", *options, "winmode=nan", "kshots=4") for n in (few, many))
        found |= {f"{kind}, {few} images": low, f"{kind}, {many} images": high}
        note = f"{low:.2f} and {high:.2f} GB; {note}"
        rows.append(Row(f"peak memory of {kind}, {many} / {few} images", high / low, 1.05, True, note))
    found["mul, 4-shot"] = peak(3, "--metrics", "winmode=mul", "kshots=4")
    rows.append(Row("peak memory of mul own at 4 shots, GB", found["mul, 4-shot"], 3.0, True))
    return rows, found


def chart(grown: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw seconds against size, one panel for each thing that grows."""
    panels = list(dict.fromkeys(name.split(":")[0] for name in grown))
    figure = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name, g in grown.items():
            if name.startswith(f"{panel}:"):
                label = f"{name.split(': ')[1]} (exponent {g['exponent']:.2f})"
                axis.loglog(g["sizes"], g["seconds"], marker="o", label=label)
                axis.set_xticks(g["sizes"], [f"{size:g}" for size in g["sizes"]])
                axis.set_xticks([], minor=True)
        axis.set_xlabel({"side": "patches a side"}.get(panel, panel))
        axis.legend(fontsize=7)
    figure.supylabel("seconds")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=cli.numbers, default=[50, 500], help="of the memory test: few, many")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark"))
    arguments, overrides = parser.parse_known_args()
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = typed(compose("config", ["run_dir=x", *overrides, "winmode=mul"]))
    check_backbone(config)
    if config.memory.search != "own":
        raise ConfigError(f"memory.search={config.memory.search}: this benchmark compares own with full; leave it out")
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    b = Bench(built(config.backbone.model), config.backbone.image_size, device, arguments.repeats)
    local = make_detector(config, b.backbone).local
    assert local is not None  # winmode is mul
    with torch.inference_mode():
        rows, rates = measure_rates(b)
        rows += measure_whole(b)
        rows += measure_windows(b, local)
        grown = measure_growth(b, local)
    memory_rows, peaks = measure_memory(b, overrides, *arguments.images)
    rows += memory_rows
    lines = ["| what | measured | bar | met | note |", "| --- | --- | --- | --- | --- |", *map(str, rows)]
    lines += ["", "| seconds as it grows | exponent |", "| --- | --- |"]
    lines += [f"| {name} | {g['exponent']:.2f} |" for name, g in grown.items()]
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {
        "backbone": config.backbone.model,
        "blocks": list(b.backbone.blocks),
        "image_size": b.size,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "rates": rates,
        "rows": [r._asdict() | {"met": r.met} for r in rows],
        "growth": grown,
        "peak_gigabytes": peaks,
    }
    (arguments.out / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "benchmark.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    chart(grown, arguments.out / "benchmark.png")
    print("\n".join(lines))
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    cli.call(lambda: cli.job(main))
