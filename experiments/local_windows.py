"""Do local windows pay, and what does the index memory lose? Measured on a dataset in MVTec AD's layout.

    python experiments/local_windows.py data/real backbone=vit_s_pypi aux.limit=10 data.limit=10 training.pool=1

The head that scores a category has never seen it: categories are split into folds, and each fold's head is trained on
the categories of the others. The windows of an image are encoded once, at the finest stride; a coarser stride is a part
of them. Everything else is an override as ``train.py`` takes it. A category that is finished in ``--out`` is not run
again. Writes ``local_windows.json``, two tables in Markdown and a chart.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning import seed_everything
from rich.console import Console
from rich.progress import track
from torch import Tensor
from window_tables import MAPS, Variant, chart, memory_table, window_table

from datamodules import read_mvtec
from fdsl import cli
from fdsl.backbones import Encoding
from fdsl.build import built, check_backbone, make_module, make_trainer, prepared
from fdsl.category import CategoryTest
from fdsl.checkpoint import load_head
from fdsl.config import Config, register, typed
from fdsl.detector import Detector
from fdsl.discrepancy import Discrepancy
from fdsl.errors import ConfigError
from fdsl.reference import ReferenceBank, distinct
from fdsl.results import write_json
from fdsl.run import HEAD_FILE, head_key, train
from fdsl.scoring import AnomalyScore, LayerMaps, blend, score_maps

CONF = Path(__file__).resolve().parent.parent / "conf"


def variants(arguments: argparse.Namespace) -> list[Variant]:
    """Every stride with the default memory, and every memory at one stride."""
    made: list[Variant] = []
    for k in arguments.kshots:
        made.append(Variant(k))
        made += [Variant(k, s, "own", arguments.default_m) for s in arguments.strides]
        made += [Variant(k, arguments.memory_stride, "own", m) for m in arguments.top_m]
        made += [Variant(k, arguments.memory_stride, "union", 1), Variant(k, arguments.memory_stride, "full")]
    return list(dict.fromkeys(made))


class Products:
    """Windows and whole images of one category's references, encoded at the finest stride."""

    def __init__(self, detector: Detector, images: Tensor, stride: int) -> None:
        assert detector.local is not None  # winmode is mul
        self.detector, self.stride = detector, stride
        self.grid = images.shape[-1] // detector.backbone.spec.patch_size
        self.local = replace(detector.local, stride=stride)
        self.whole = ReferenceBank.encode(detector.backbone, images, dtype=detector.dtype)
        self.windows = self.local.encode_references(detector.backbone, images, detector.dtype, progress=True)

    def places(self, stride: int) -> Tensor:
        """Which windows of the finest stride are those of a coarser one, (W',) int64."""
        side = (self.grid - self.local.size) // self.stride + 1
        return torch.arange(side * side).view(side, side)[:: stride // self.stride, :: stride // self.stride].flatten()

    def bank(self, variant: Variant) -> ReferenceBank:
        """The bank that a variant searches: of whole images, or of its windows."""
        if not variant.stride:
            return ReferenceBank(self.whole.tokens[:, : variant.kshots], self.whole.image_feature[: variant.kshots])
        each = self.windows.image_feature.shape[0] // self.whole.image_feature.shape[0]
        units = (self.places(variant.stride) + each * torch.arange(variant.kshots)[:, None]).flatten()
        return ReferenceBank(self.windows.tokens[:, units], self.windows.image_feature[units])

    def score(self, variant: Variant, bank: ReferenceBank, whole: Encoding, windows: Encoding) -> LayerMaps:
        """Maps (L, 1, G, G) of one encoded image."""
        head = self.detector.head
        if not variant.stride:
            found: Discrepancy = bank.match(whole.tokens)
            learned = head(found.deviation).last
            return LayerMaps(learned, found.discrepancy.view_as(learned))
        local = replace(self.local, stride=variant.stride, search=variant.search, top_m=variant.top_m)
        places = self.places(variant.stride)
        parts = (Encoding(windows.tokens[:, p], windows.image_feature[p]) for p in places.split(local.batch_size))
        maps = local.score_windows(head, [bank], parts, self.grid)[0]
        return LayerMaps(head.aggregate(maps.learned[:, None]), maps.discrepancy[:, None])


def test_category(config: Config, detector: Detector, target: Any, category: str, chosen: list[Variant]) -> Any:
    """Score one category by every variant; returns metrics, seconds an image and bank bytes by name."""
    with torch.inference_mode():
        references = distinct(target.reference_images(category))
        stride = min(v.stride for v in chosen if v.stride)
        products = Products(detector, references, stride)
        banks = {v: products.bank(v) for v in chosen}
        names = [f"{v.name}/{mode}/{m}" for v in chosen for m in MAPS for mode in v.modes]
        test = CategoryTest(names, config.image_score)
        seconds: dict[str, float] = defaultdict(float)
        loader = target.test_dataloader()[target.categories.index(category)]
        for batch in track(loader, f"{category}: images"):
            scores = score_image(products, banks, batch["image"], config, seconds)
            test.update(scores, batch["path"], batch["label"], batch["mask"], batch["defect_visible"])
    count = len(test.paths)
    return {
        "metrics": test.finish().metrics,
        "images": count,
        "hidden_defects": test.hidden_defects,
        "seconds_per_image": {name: value / count for name, value in seconds.items()},
        "bank_bytes": {v.name: bank.nbytes for v, bank in banks.items()},
    }


def score_image(
    products: Products,
    banks: dict[Variant, ReferenceBank],
    image: Tensor,
    config: Config,
    seconds: dict[str, float],
) -> dict[str, AnomalyScore]:
    """Score one image (1, 3, S, S) by every variant; adds to ``seconds`` what each took."""
    backbone = products.detector.backbone
    with timed(seconds, "encode/whole"):
        whole = backbone(image)
    with timed(seconds, "encode/windows"):
        parts = [backbone(part) for part in products.local.cut(backbone, image[0])]
    windows = Encoding(torch.cat([p.tokens for p in parts], dim=1), torch.cat([p.image_feature for p in parts]))
    scores: dict[str, AnomalyScore] = {}
    for v, bank in banks.items():  # without windows comes first
        with timed(seconds, v.name):
            maps = products.score(v, bank, whole, windows)
        for name, m in zip(MAPS, maps, strict=True):
            made = score_maps(m, config.map_size)
            if v.stride:
                scores[f"{v.name}/only/{name}"] = made
                made = blend(scores[f"{v.kshots}/nan//{name}"], made, config.win_weight)
            scores[f"{v.name}/{'mul' if v.stride else ''}/{name}"] = made
    return scores


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add what a stage takes."""
    start = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - start


def run_fold(arguments: argparse.Namespace, fold: list[str], others: list[str], overrides: list[str]) -> Any:
    """Train a head on ``others`` and test it on each category of ``fold``; returns figures by category."""
    folder = arguments.out / "_".join(fold)
    given = [
        "data=mvtec",
        f"data.root={arguments.root}",
        f"data.categories=[{','.join(fold)}]",
        "aux=mvtec",
        f"aux.root={arguments.root}",
        f"aux.categories=[{','.join(others)}]",
        f"kshots={max(arguments.kshots)}",
        "winmode=mul",
        f"win_stride={min(arguments.strides)}",
        "data.batch_size=1",
        f"run_dir={folder}",
        *overrides,
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("config", given))
    check_backbone(config)
    measured = {key: str(value) for key, value in vars(arguments).items() if key != "out"}
    check_settings(folder, {**measured, "overrides": overrides})
    wanted = {c: folder / f"{c}.json" for c in fold}
    if missing := [c for c, path in wanted.items() if not path.is_file()]:
        target = prepared(config.data)
        backbone = built(config.backbone.model)
        if not (folder / HEAD_FILE).is_file():
            aux = prepared(config.aux)
            seed_everything(config.training.seed, verbose=False)
            trainer = make_trainer(config, folder)
            module = make_module(config, backbone, None, aux)
            train(config, trainer, module, aux, folder, head_key(config, module, aux).key)
        module = make_module(config, backbone, load_head(folder / HEAD_FILE, config.nam), None)
        module.head.eval()
        for category in missing:
            figures = test_category(config, module.detector, target, category, variants(arguments))
            write_json(wanted[category], figures | {"trained_on": others})
    return {c: json.loads(path.read_text("utf-8")) for c, path in wanted.items()}


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse to go on in a folder that was begun with other settings; note them in a new one.

    Raises:
        ConfigError: if they differ.
    """
    path = folder / "settings.json"
    if path.is_file() and json.loads(path.read_text("utf-8")) != json.loads(json.dumps(settings)):
        raise ConfigError(f"{folder}: begun with other settings (settings.json); choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def main() -> None:
    """Run all folds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="dataset in MVTec AD's layout")
    parser.add_argument("--kshots", type=cli.numbers, default=[1, 4], help="default 1,4")
    parser.add_argument("--strides", type=cli.numbers, default=[2, 4, 8], help="multiples of the least; default 2,4,8")
    parser.add_argument("--memory-stride", type=int, default=4, help="stride at which memories are compared")
    parser.add_argument("--top-m", type=cli.numbers, default=[1, 2, 4, 8], help="to compare; default 1,2,4,8")
    parser.add_argument("--default-m", type=int, default=1, help="top_m of the comparison of strides")
    parser.add_argument("--folds", type=int, default=3, help="heads that are trained; default 3")
    parser.add_argument("--out", type=Path, default=Path("outputs/local_windows"))
    arguments, overrides = parser.parse_known_args()
    register()
    finest = min(arguments.strides)
    if odd := sorted({s for s in (*arguments.strides, arguments.memory_stride) if s % finest}):
        raise ConfigError(f"strides {odd}: windows are encoded at stride {finest} only; give multiples of it")
    categories = sorted({s.category for s in read_mvtec(arguments.root).samples})
    if not 2 <= arguments.folds <= len(categories):
        raise ConfigError(f"--folds {arguments.folds}: from 2 to the number of categories, {len(categories)}")
    figures: dict[str, Any] = {}
    for i in range(arguments.folds):
        fold = categories[i :: arguments.folds]
        figures |= run_fold(arguments, fold, [c for c in categories if c not in fold], overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("config", ["run_dir=x", *overrides]))
    arguments.win_size = config.win_size
    arguments.grid = check_backbone(config)
    write_json(arguments.out / "local_windows.json", figures)
    tables = [*window_table(arguments, figures), "", *memory_table(arguments, figures)]
    (arguments.out / "local_windows.md").write_text("\n".join(tables) + "\n", encoding="utf-8")
    chart(arguments, figures, arguments.out / "local_windows.png")
    Console(width=200).print("\n".join(tables), markup=False)


if __name__ == "__main__":
    cli.call(lambda: cli.job(main))
