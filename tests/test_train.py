"""train.py as a user runs it: the command line, what a run leaves behind, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from fdsl.checkpoint import load_head
from fdsl.config import typed
from fdsl.errors import FDSLError
from fdsl.module import FDSLModule
from fdsl.results import METRICS
from fdsl.run import train
from tests.running import ROOT, TINY, command, composed, ran


def test_a_run_leaves_everything_its_figures_depend_on(roots: list[str], tmp_path: Path):
    result = ran(tmp_path / "run", *roots, "overlays=1")
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert content == result
    assert content["schema"] == 1
    for table in (content["metrics"], content["baseline"]["fd"]):
        assert set(table) == {"mean", "plate", "tiles"}
        for figures in table.values():
            assert set(figures) == set(METRICS)
            assert all(0 <= v <= 1 for v in figures.values())
        for name in METRICS:
            assert table["mean"][name] == pytest.approx((table["plate"][name] + table["tiles"][name]) / 2)
    assert len(content["backbone"]["sha256"]) == 64
    assert content["backbone"]["image_size"] == 56
    assert content["resolution"] == 240
    assert content["config"]["kshots"] == 1
    assert content["code"]["version"]
    assert content["head"]["trained"]["categories"] == ["candle", "fryum"]
    assert len(content["references"]["references"]["plate"][0]["sha256"]) == 64
    assert set(content["seconds"]) == {"prepare", "train", "test"}
    left = {p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    resolved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert resolved["data"]["image_size"] == 56  # no interpolation left
    assert {"head.safetensors", "checkpoints/last.ckpt", "references.json", "results.csv", "scores.csv"} <= left
    assert "partial.json" not in left
    assert any(p.startswith("heatmaps/plate/") for p in left)
    assert len((tmp_path / "run" / "scores.csv").read_text().splitlines()) == 13


def test_a_trained_head_is_tested_again_with_the_same_figures(roots: list[str], tmp_path: Path):
    first = ran(tmp_path / "a", *roots, "overlays=0")
    for file in ("head.safetensors", "checkpoints/last.ckpt"):
        again = ran(tmp_path / file, roots[0], "train=false", f"ckpt={tmp_path / 'a' / file}", "overlays=0")
        assert again["metrics"] == first["metrics"]
        assert again["head"]["trained"] == first["head"]["trained"]
    manifest = tmp_path / "a" / "references.json"
    head = f"ckpt={tmp_path / 'a' / 'head.safetensors'}"
    published = ran(tmp_path / "c", roots[0], "train=false", head, f"references={manifest}", "seed=9", "overlays=0")
    assert published["metrics"] == first["metrics"]

    with pytest.raises(FDSLError, match=r"trained with blocks \[1, 2, 3, 4\]"):
        ran(tmp_path / "d", roots[0], "train=false", head, "backbone.model.blocks=[1,2,3]")
    with pytest.raises(FDSLError, match="trained with weights_sha256"):
        ran(tmp_path / "e", roots[0], "train=false", head, "backbone.model.seed=1")
    visa = roots[1].removeprefix("aux.")
    with pytest.raises(FDSLError, match="candle, fryum: tested, but also"):
        ran(tmp_path / "f", "data=visa", f"data.{visa}", "train=false", head)


def test_a_training_is_not_resumed_differently(roots: list[str], tmp_path: Path):
    ran(tmp_path / "a", *roots, "overlays=0")
    state = f"training.resume={tmp_path / 'a' / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(FDSLError, match=r"begun with categories \['candle', 'fryum'\], this run has \['fryum'\]"):
        ran(tmp_path / "b", *roots, state, "aux.categories=[fryum]")
    with pytest.raises(FDSLError, match=r"begun with training\.lr 0\.001, this run has 0\.01"):
        ran(tmp_path / "c", *roots, state, "training.lr=0.01")
    head = f"training.resume={tmp_path / 'a' / 'head.safetensors'}"
    with pytest.raises(FDSLError, match="not a training checkpoint"):
        ran(tmp_path / "d", *roots, head)


WINDOWS = ["win_size=2", "win_stride=1", "overlays=0"]


def test_windows_and_memory_change_the_test_and_not_the_head(roots: list[str], tmp_path: Path):
    plain = ran(tmp_path / "nan", *roots, "overlays=0")
    head = [roots[0], "train=false", f"ckpt={tmp_path / 'nan' / 'head.safetensors'}"]
    seen = [plain["metrics"]["mean"]]
    for mode, memory in (("mul", "full"), ("mul", "index"), ("onlywin", "full")):
        result = ran(tmp_path / f"{mode}_{memory}", *head, *WINDOWS, f"winmode={mode}", f"memory={memory}")
        seen.append(result["metrics"]["mean"])
        assert result["bank_bytes"]["plate"] > plain["bank_bytes"]["plate"] * (2 if mode == "mul" else 1)
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    trained = ran(tmp_path / "mul", *roots, *WINDOWS, "winmode=mul", "memory=full")
    assert trained["metrics"]["mean"] == seen[1]
    assert (tmp_path / "mul/head.safetensors").read_bytes() == (tmp_path / "nan/head.safetensors").read_bytes()


def test_banks_are_written_and_read_in_place_of_encoding(roots: list[str], tmp_path: Path, monkeypatch):
    first = ran(tmp_path / "a", *roots, *WINDOWS, "winmode=mul", "memory.save=true")
    banks = tmp_path / "a" / "banks"
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in banks.iterdir())
    assert len(list(banks.iterdir())) == 4
    again = [roots[0], "train=false", f"ckpt={tmp_path / 'a' / 'head.safetensors'}", f"memory.load={banks}"]

    with pytest.raises(FDSLError, match=r"made with win_stride 1, this run has 2"):
        ran(tmp_path / "b", *again, *WINDOWS, "winmode=mul", "win_stride=2")
    with pytest.raises(FDSLError, match=r"made with references \["):
        ran(tmp_path / "c", *again, *WINDOWS, "winmode=mul", "seed=1")
    with pytest.raises(FDSLError, match="made with backbone"):
        ran(tmp_path / "g", *again, *WINDOWS, "winmode=mul", "backbone.model.heads=4")
    with pytest.raises(FDSLError, match="made with dtype fp32, this run has fp16"):
        ran(tmp_path / "d", *again, *WINDOWS, "winmode=mul", "memory.dtype=fp16")
    with pytest.raises(FDSLError, match=r"set memory\.load=.*banks"):
        ran(tmp_path / "h", *again, *WINDOWS, "winmode=mul", f"memory.load={tmp_path / 'a'}")
    with pytest.raises(FDSLError, match="drop one of them"):
        ran(tmp_path / "e", *again, *WINDOWS, "winmode=mul", "memory.save=true")

    def encoded(*args, **kwargs):
        raise AssertionError("references are encoded, not read")

    monkeypatch.setattr("fdsl.detector.Detector.encode_references", encoded)
    assert ran(tmp_path / "f", *again, *WINDOWS, "winmode=mul")["metrics"] == first["metrics"]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the runs that really train."""
    seen = []

    def counted(config, trainer, module, aux, folder, key):
        seen.append(folder)
        return train(config, trainer, module, aux, folder, key)

    monkeypatch.setattr("fdsl.run.train", counted)
    return seen


def test_jobs_that_need_the_same_head_share_one_training(roots: list[str], tmp_path: Path, trainings: list[Path]):
    given = [*roots, f"store={tmp_path / 'heads'}", "overlays=0"]
    first = ran(tmp_path / "a", *given)
    same = (
        ["kshots=2"],
        ["seed=3"],
        ["fusion=fd_asl"],
        ["winmode=mul", *WINDOWS],
        ["aux.num_workers=1"],
        ["map_size=60"],
    )
    for i, overrides in enumerate(same):
        result = ran(tmp_path / str(i), *given, *overrides)
        assert result["head"]["reused"]
        assert result["head"]["key"] == first["head"]["key"]
        assert result["head"]["trained_by"]["run_dir"] == str(tmp_path / "a")
        assert result["head"]["trained"] == first["head"]["trained"]
        assert (tmp_path / str(i) / "head.safetensors").read_bytes() == (tmp_path / "a/head.safetensors").read_bytes()
    assert ran(tmp_path / "again", *given)["metrics"] == first["metrics"]
    assert trainings == [tmp_path / "a"]

    other = ("nam=false", "training.lr=0.01", "aux.limit=1", "aux.augment.p=0.5", "training.seed=1", "aux.fit=stretch")
    keys = {ran(tmp_path / f"x{i}", *given, override)["head"]["key"] for i, override in enumerate(other)}
    assert len(keys - {first["head"]["key"]}) == len(other)
    assert len(trainings) == 1 + len(other)
    forced = ran(tmp_path / "forced", *given, "retrain=true")
    assert not forced["head"]["reused"]
    assert forced["metrics"] == first["metrics"]


def test_a_changed_image_or_a_damaged_head_is_trained_again(
    roots: list[str], visa_root: Path, tmp_path: Path, trainings: list[Path], draw
):
    given = [*roots, f"store={tmp_path / 'heads'}", "overlays=0"]
    first = ran(tmp_path / "a", *given)
    stored = tmp_path / "heads" / f"{first['head']['key']}.safetensors"
    stored.write_bytes(stored.read_bytes()[:-8])
    assert ran(tmp_path / "b", *given)["metrics"] == first["metrics"]
    assert len(trainings) == 2
    draw(visa_root / "candle/Data/Images/Anomaly/000.JPG", value=7)
    assert ran(tmp_path / "c", *given)["head"]["key"] != first["head"]["key"]
    assert len(trainings) == 3


@pytest.mark.slow
def test_of_jobs_that_run_at_once_one_trains(roots: list[str], tmp_path: Path):
    def start(k: int) -> subprocess.Popen:
        given = [
            *TINY,
            *roots,
            "training.epochs=3",
            f"store={tmp_path / 'heads'}",
            f"kshots={k}",
            f"run_dir={tmp_path}/{k}",
        ]
        return subprocess.Popen([sys.executable, ROOT / "train.py", *given], cwd=tmp_path, stderr=subprocess.PIPE)

    jobs = [start(k) for k in (1, 2)]
    assert [job.wait(timeout=300) for job in jobs] == [0, 0], [job.stderr.read() for job in jobs]
    heads = [json.loads((tmp_path / f"{k}" / "results.json").read_text())["head"] for k in (1, 2)]
    assert sorted(head["reused"] for head in heads) == [False, True]
    assert heads[0]["sha256"] == heads[1]["sha256"]
    assert heads[0]["trained_by"] == heads[1]["trained_by"]


def test_two_runs_write_the_same_head(roots: list[str], tmp_path: Path):
    heads = []
    for name in ("a", "b"):
        ran(tmp_path / name, *roots, "overlays=0")
        heads.append((tmp_path / name / "head.safetensors").read_bytes())
    assert heads[0] == heads[1]


def test_an_upstream_checkpoint_needs_its_own_features(roots: list[str], tmp_path: Path, golden: Path):
    with pytest.raises(FDSLError, match="4 layers of width 64, this backbone gives 4 of width 32"):
        ran(tmp_path / "a", roots[0], "train=false", f"ckpt={golden / 'upstream_epoch_1.pth'}")


def test_what_was_finished_survives_a_broken_image(roots: list[str], mvtec_root: Path, tmp_path: Path):
    bad = mvtec_root / "tiles" / "test" / "scratch" / "002.png"
    bad.write_bytes(bad.read_bytes()[:-300])
    with pytest.raises(FDSLError, match=r"tiles/test/scratch/002\.png: cannot be read") as refused:
        ran(tmp_path / "run", *roots, "overlays=0", "data.num_workers=1")
    assert "Traceback" not in str(refused.value)
    assert (tmp_path / "run" / "head.safetensors").is_file()
    partial = json.loads((tmp_path / "run" / "partial.json").read_text())
    assert set(partial["metrics"]) == {"mean", "plate"}


@pytest.mark.slow
def test_a_multirun_sweeps_every_combination(roots: list[str], tmp_path: Path):
    done = command(tmp_path, *roots, "kshots=1,2", "nam=true,false", "winmode=nan", "overlays=0", "-m")
    assert done.returncode == 0, done.stderr
    results = sorted(tmp_path.glob("outputs/sweeps/*/*/results.json"))
    assert len(results) == 4
    seen = {(c["kshots"], c["nam"]) for c in (json.loads(p.read_text())["config"] for p in results)}
    assert seen == {(1, True), (1, False), (2, True), (2, False)}
    latest = (tmp_path / "outputs" / "latest").resolve()
    assert latest == results[-1].parent
    assert "image" in done.stdout
    assert str(results[-1].relative_to(tmp_path)) in done.stdout
    assert yaml.safe_load((latest / "config.yaml").read_text())["kshots"] == 2

    # As in the README: a run's files are named through outputs/latest, which is another run's from then on.
    named = ["ckpt=outputs/latest/head.safetensors", "references=outputs/latest/references.json"]
    refused = command(tmp_path, roots[0], *named, "train=false", "kshots=1", "nam=false")
    assert "lists 2 references, kshots is 1" in refused.stderr
    again = command(tmp_path, roots[0], *named, "train=false", "kshots=2", "nam=false")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "outputs" / "latest" / "head.safetensors").is_file()  # so that the same command works again
    figures = [
        json.loads((p / "results.json").read_text())["metrics"] for p in (latest, tmp_path / "outputs" / "latest")
    ]
    assert figures[0] == figures[1]
    assert (latest / "train.log").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["winmode=foo"], "winmode=foo: must be one of nan, mul, onlywin"),
        (["winmode=mul"], "win_size=13: larger than the 4 x 4 patch grid; use at most 4"),
        (["memory=full", "memory.top_m=2"], "the full memory picks no windows"),
        (["memory.top_m=0"], "memory.top_m=0: must be at least 1"),
        (["memory.top_m=null"], "give a number"),
        (["memory.search=some"], "memory.search=some: must be one of full, union, own"),
        (["memory.dtype=int8"], "memory.dtype=int8: must be one of fp32, fp16, bf16"),
        (["memory.load=/nowhere"], "memory.load=/nowhere: no such folder"),
        (["winmode=mul", "win_weight=0"], "win_weight=0 with winmode=mul: set winmode=nan instead"),
        (["win_batch_size=0"], "win_batch_size=0: must be at least 1"),
        (
            ["winmode=mul", "win_stride=5", "backbone.image_size=518"],
            "uncovered: use win_stride=4 or 6, or win_size=12",
        ),
        (["backbone.model.blocks=[3,9]"], "there is no block 9, they are 1 to 4"),
        (["backbone.image_size=57"], "image size 57 is no multiple"),
        (["data.categories=[plate,foo]"], "unknown category foo: "),
        (["data.categories=[]"], "no categories"),
        (["data.categories=plate"], "a list of names"),
        (["data.categories=[1]"], "a list of names"),
        (["data.categories=[plate]", "aux.categories=[plate]"], "plate: tested, but also among"),
        (["data.map_size=120"], "data.map_size=120: set map_size instead, it is 240"),
        (["data.download=no"], "download='no': must be true or false"),
        (["backbone.mean=[0.5]"], "backbone.mean=[0.5]: three values"),
        (["backbone.model.blocks=4"], "backbone.model.blocks=4: a list"),
        (["trainer.devices=2"], "trainer.devices=1"),
        (["train=false", "retrain=true", "ckpt=x"], "retrain=true trains"),
        (["train=false"], "train=false needs a trained head"),
        (["ckpt=/nowhere"], "so add train=false"),
        (["train=false", "ckpt=/nowhere"], "ckpt=/nowhere: no such file"),
        (["references=/nowhere"], "references=/nowhere: no such file"),
        (["kshots=0"], "kshots=0: must be a whole number, at least 1"),
        (["kshots=9"], "plate has 4 defect-free training images, 9 references"),
        (["data.limit=0"], "limit=0: must be a whole number, at least 1"),
        (["data.batch_size=many"], "batch_size='many': must be a whole number"),
        (["trainer.accelerator=abacus"], "lightning.Trainer cannot be made: "),
        (["training.lr=0"], "training.lr=0.0: must be above 0"),
        (["training.betas=[0.5]"], "two values"),
        (["fusion=both"], "fusion=both: must be one of asl, fd_asl"),
        (["fusion_weight=2"], r"must lie in [0, 1]"),
        (["image_score=x"], "must be one of transductive, independent"),
        (["aux.root=/nowhere"], "/nowhere: 1 problem in this dataset"),
        (["aux=mvtec", "training.references=1"], "plate, tiles: tested, but also among the auxiliary categories"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_cannot_be_run_is_refused(overrides: list[str], said: str, roots: list[str], tmp_path: Path, monkeypatch):
    def no_model(*args, **kwargs):
        raise AssertionError("refused too late: a model is being built")

    monkeypatch.setattr("fdsl.backbones.base.Backbone.__init__", no_model)
    given = [*roots, *overrides]
    if "aux=mvtec" in overrides:
        given.append(f"aux.root={roots[0].removeprefix('data.root=')}")
    with pytest.raises(FDSLError) as refused:
        ran(tmp_path / "run", *given)
    assert said in str(refused.value)


@pytest.mark.slow
def test_a_failing_job_does_not_stop_the_others(roots: list[str], tmp_path: Path):
    done = command(tmp_path, *roots, "kshots=9,1", "fusion=asl,both", "overlays=0", "-m")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/results.json"))) == 1
    summary = done.stderr[done.stderr.index("error: 3 of 4 jobs failed") :]
    assert [line.split(":")[0] for line in summary.splitlines() if line.startswith("  k")] == [
        "  kshots=9 fusion=asl",
        "  kshots=9 fusion=both",
        "  kshots=1 fusion=both",
    ]
    assert "plate has 4 defect-free training images, 9 references were asked for" in summary
    assert summary.count("fusion=both: must be one of asl, fd_asl") == 2
    assert "1-shot" in done.stdout
    assert len(list(tmp_path.glob("outputs/sweeps/*/sweep.csv"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("kshot=2", "Could not override 'kshot'"),
        ("+kshot=2", "kshot: no such key; did you mean kshots?"),
        ("+memory.topm=2", "memory.topm: no such key; did you mean memory.top_m?"),
        ("data.foo=1", "Could not override 'data.foo'"),
        ("seed=x", "Value 'x' of type 'str' could not be converted to Integer"),
        ("backbone=nope", "Could not find 'backbone/nope'"),
        ("winmode=foo", "winmode=foo: must be one of nan, mul, onlywin"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(override: str, said: str, roots: list[str], tmp_path: Path):
    done = command(tmp_path, *roots, override)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_nan_and_integers_are_plain_values_on_a_command_line():
    config = composed(["winmode=nan", "kshots=4", "nam=false", "run_dir=x"])
    assert (config.winmode, config.kshots, config.nam) == ("nan", 4, False)


def test_the_default_is_the_papers():
    config = typed(composed(["run_dir=x"]))
    assert config.data["_target_"] == "datamodules.MVTecDataModule"
    assert config.aux["_target_"] == "datamodules.VisADataModule"
    assert config.backbone.model["name"] == "ViT-L-14-336-quickgelu"
    assert config.backbone.model["blocks"] == [6, 12, 18, 24]
    assert (config.backbone.image_size, config.kshots, config.nam, config.winmode) == (518, 1, True, "nan")
    training = config.training
    assert (training.epochs, training.batch_size, training.lr, training.betas) == (5, 8, 1e-3, [0.5, 0.999])
    assert (training.seed, training.references) == (111, 10)
    assert config.aux["augment"]["_target_"] == "datamodules.augment.DefectCrop"
    assert (config.aux["kshots"], config.aux["seed"], config.aux["batch_size"]) == (10, 111, 8)


@pytest.mark.parametrize(
    ("overrides", "data", "aux"),
    [
        (["data=visa"], "VisADataModule", "MVTecDataModule"),
        (["experiment=paper_mvtec"], "MVTecDataModule", "VisADataModule"),
        (["experiment=paper_visa"], "VisADataModule", "MVTecDataModule"),
        (["experiment=quickstart"], "SyntheticDataModule", "SyntheticDataModule"),
        (["data=visa", "aux=synthetic"], "VisADataModule", "SyntheticDataModule"),
    ],
)
def test_the_auxiliary_dataset_is_the_targets_counterpart(overrides: list[str], data: str, aux: str):
    config = composed([*overrides, "run_dir=x"])
    assert config.data["_target_"] == f"datamodules.{data}"
    assert config.aux["_target_"] == f"datamodules.{aux}"


@pytest.mark.parametrize("group", ["data", "aux", "backbone", "trainer", "logger", "memory", "experiment"])
def test_every_choice_of_every_group_composes_and_passes_the_checks(group: str):
    for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
        if path.stem != "base":
            config = composed([f"{group}={path.stem}", "run_dir=x"])
            typed(config)
            OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def test_an_interrupted_training_is_resumed_to_the_same_head(roots: list[str], tmp_path: Path, monkeypatch):
    whole = ["training.epochs=2", "training.batch_size=2", "training.save_every=1", "overlays=0"]  # 2 x 3 steps
    ran(tmp_path / "whole", *roots, *whole)
    step = FDSLModule.training_step

    def killed(self, batch, batch_idx):
        if self.global_step == 4:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(FDSLModule, "training_step", killed)
        with pytest.raises(FDSLError, match=r"interrupted at step 4; go on with .*training\.resume="):
            ran(tmp_path / "killed", *roots, *whole)
    state = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    ran(tmp_path / "again", *roots, *whole, f"training.resume={state}")
    heads = [load_head(tmp_path / name / "head.safetensors").head.state_dict() for name in ("whole", "again")]
    assert all(torch.equal(a, b) for a, b in zip(*(h.values() for h in heads), strict=True))
