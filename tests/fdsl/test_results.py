import csv
import io
import json
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fdsl.category import CategoryResult
from fdsl.results import METRICS, by_method, document, mean_over, table, write_csv, write_json, write_scores


def result(value: float, labels: tuple[int, ...] = (0, 1, 1), hidden: int = 0) -> CategoryResult:
    figures = dict.fromkeys(METRICS, value)
    scores = torch.linspace(0, 1, len(labels), dtype=torch.float64)
    return CategoryResult(
        metrics={"fdsl": figures, "fd": {n: v / 2 for n, v in figures.items()}},
        paths=[f"{i}.png" for i in range(len(labels))],
        labels=torch.tensor(labels),
        image_scores={"fdsl": scores, "fd": 1 - scores},
        hidden_defects=hidden,
    )


def test_the_mean_is_over_classes_not_images():
    tables = by_method({"a": result(1.0, (0, 1) * 50), "b": result(0.5)})
    assert tables["fdsl"]["mean"]["pixel_ap"] == pytest.approx(0.75)
    assert tables["fd"]["mean"]["pixel_ap"] == pytest.approx(0.375)


def test_an_undefined_class_makes_the_mean_undefined_and_is_said(tmp_path: Path):
    results = {"a": result(1.0), "b": result(math.nan, (0, 0, 0))}
    content = document(results, {"resolution": 240})
    assert math.isnan(mean_over(by_method(results)["fdsl"])["pixel_ap"])
    assert content["warnings"] == ["b: only normal images, so its metrics are undefined"]
    write_json(tmp_path / "results.json", content)
    read = json.loads((tmp_path / "results.json").read_text())
    assert read["metrics"]["mean"]["pixel_ap"] is None
    assert read["metrics"]["a"]["pixel_ap"] == 1.0
    assert "NaN" not in (tmp_path / "results.json").read_text()


def test_defects_cropped_away_are_said():
    (said,) = document({"a": result(0.5, hidden=2)}, {})["warnings"]
    assert said.startswith("a: 2 of 2 defective images show no defect on the measured map")


def test_tables_on_paper_and_screen_agree(tmp_path: Path):
    results = {"a": result(1.0), "b": result(0.5)}
    write_csv(tmp_path / "results.csv", results)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(r["method"], r["category"], float(r["pixel_ap"])) for r in rows if r["method"] == "fdsl"] == [
        ("fdsl", "mean", 0.75),
        ("fdsl", "a", 1.0),
        ("fdsl", "b", 0.5),
    ]
    write_scores(tmp_path / "scores.csv", results)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert len(rows) == 6
    assert rows[1] == {"category": "a", "path": "1.png", "label": "1", "fdsl": "0.500000", "fd": "0.500000"}
    console = Console(width=110, file=io.StringIO())
    console.print(table(results, "title"))
    text = console.file.getvalue()
    assert "100.0" in text
    assert "75.0" in text
    assert "37.5" in text
