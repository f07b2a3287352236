import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "leave_one_out.py"
QUICK = [
    "backbone=tiny",
    "progress=false",
    "training.epochs=1",
    "training.references=2",
    "overlays=0",
    "trainer=cpu",
    "store=null",
    "cache.features=null",
]
SERIAL = ["data.num_workers=0", "aux.num_workers=0", "logger=none"]


@pytest.fixture
def script(mvtec_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(*more: str) -> dict:
        out = tmp_path / "out"
        given = [str(SCRIPT), str(mvtec_root), "--kshots", "1,2", "--out", str(out), *QUICK, *SERIAL, *more]
        monkeypatch.setattr("sys.argv", given)
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return json.loads((out / "leave_one_out.json").read_text())

    return run


def test_every_category_is_tested_with_a_head_that_never_saw_it(script, tmp_path: Path):
    found = script()
    assert {k: set(v) for k, v in found.items()} == {"1": {"plate", "tiles"}, "2": {"plate", "tiles"}}
    for category, other in (("plate", "tiles"), ("tiles", "plate")):
        for k in (1, 2):
            result = json.loads((tmp_path / "out" / category / f"{k}shot-seed0" / "results.json").read_text())
            assert result["head"]["trained"]["categories"] == [other]
            assert set(result["metrics"]) == {"mean", category}
            assert result["config"]["kshots"] == k
            assert found[str(k)][category]["fd"] == result["baseline"]["fd"][category]
        assert (tmp_path / "out" / category / "head.safetensors").is_file()  # trained once, tested at every k

    before = (tmp_path / "out" / "plate" / "1shot-seed0" / "results.json").stat().st_mtime_ns
    assert script() == found
    assert (tmp_path / "out" / "plate" / "1shot-seed0" / "results.json").stat().st_mtime_ns == before
