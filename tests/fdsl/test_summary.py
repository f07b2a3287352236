import io
import json
import statistics
from pathlib import Path

import pytest
from rich.console import Console

from fdsl import summary
from fdsl.results import METRICS
from fdsl.sweep import sweep_name


def write(folder: Path, k: int, seed: int, value: float | None, **config) -> None:
    figures = {"mean": dict.fromkeys(METRICS, value), "plate": dict.fromkeys(METRICS, value)}
    content = {
        "config": {
            "kshots": k,
            "seed": seed,
            "winmode": "nan",
            "run_dir": str(folder),
            "memory": {"top_m": 1},
            **config,
        },
        "references": {"dataset": "mvtec"},
        "head": {"trained": {"dataset": "visa"}},
        "metrics": figures,
        "baseline": {"fd": {c: dict.fromkeys(METRICS, 0.5) for c in figures}},
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))


def test_figures_are_means_over_seeds_of_each_setup(tmp_path: Path):
    values = {1: [0.5, 0.7, 0.9], 10: [0.6], 2: [0.2, 0.4]}
    for k, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            write(tmp_path / f"{k}-{seed}", k, seed, value)
    found = summary.rows(summary.collect([tmp_path]))
    assert [row.setup for row in found] == [{"kshots": 1}, {"kshots": 2}, {"kshots": 10}]
    for row in found:
        of_seeds = values[row.setup["kshots"]]
        mean, std = row.figures["fdsl"]["pixel_ap"]
        assert mean == pytest.approx(statistics.mean(of_seeds))
        assert std == (pytest.approx(statistics.stdev(of_seeds)) if len(of_seeds) > 1 else None)
        assert row.seeds == list(range(len(of_seeds)))
    summary.write_table(tmp_path / "table.csv", found)
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0].startswith("kshots,method,seeds,image_auroc_mean,image_auroc_std")
    assert lines[1].startswith("1,fdsl,0 1 2,0.700000,0.200000")
    assert len(lines) == 7


def test_what_varies_makes_a_column_and_nothing_else(tmp_path: Path):
    write(tmp_path / "a", 1, 0, 0.1, memory={"top_m": 1}, progress=True)
    write(tmp_path / "b", 1, 0, 0.2, memory={"top_m": 2}, progress=False)
    write(tmp_path / "c", 1, 1, 0.4, memory={"top_m": 2}, progress=False)
    found = summary.rows(summary.collect([tmp_path]))
    assert [(row.setup, row.seeds) for row in found] == [({"memory.top_m": 1}, [0]), ({"memory.top_m": 2}, [0, 1])]


def test_undefined_figures_stay_undefined_and_foreign_files_are_left_out(tmp_path: Path, caplog):
    write(tmp_path / "a", 1, 0, None)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "results.json").write_text("{}")
    (row,) = summary.rows(summary.collect([tmp_path]))
    assert row.figures["fdsl"]["pixel_ap"][0] != row.figures["fdsl"]["pixel_ap"][0]
    assert "b/results.json: no result" in caplog.text
    assert summary.rows([]) == []


def test_a_multirun_is_named_by_what_it_tests():
    base = sweep_name(["kshots=1,2,4", "winmode=mul"])
    assert base.startswith("kshots_1+2+4-")
    assert sweep_name(["kshots=1,2,4", "winmode=mul", "force=true", "progress=false", "logger=none"]) == base
    others = (["kshots=1,2,4"], ["kshots=1,2", "winmode=mul"], ["winmode=mul", "kshots=1,2,4"], ["+sweep=paper"])
    assert len({base, *(sweep_name(each) for each in others)}) == 5
    for name in (base, sweep_name(["data.categories=[a,b],[c d]/../x", "kshots=1"]), sweep_name(["x=" + "1," * 200])):
        assert len(name) < 80
        assert not set(name) & set("/[] '\"$")


def test_the_table_shows_percent(tmp_path: Path):
    write(tmp_path / "a", 1, 0, 0.6)
    write(tmp_path / "b", 1, 1, 0.8)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary.table(summary.rows(summary.collect([tmp_path])), "title"))
    assert "70.0 \u00b1 14.1" in console.export_text()
