"""The direction of imports, which keeps each layer usable without the ones above it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "fdsl").rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT / "src").as_posix())
def test_fdsl_never_imports_datamodules(path: Path):
    assert "datamodules" not in tops(path)


def test_one_module_turns_configuration_into_objects():
    users = [p.name for p in SOURCES if any(n.startswith("hydra.utils") for n in imported(p))]
    assert users == ["build.py"]


@pytest.mark.parametrize(
    "name",
    [
        "discrepancy",
        "reference",
        "score_learning",
        "losses",
        "scoring",
        "checkpoint",
        "windows",
        "local_features",
        "detector",
        "bank_files",
    ],
)
def test_the_algorithm_runs_without_lightning_or_hydra(name: str):
    assert not tops(ROOT / "src" / "fdsl" / f"{name}.py") & {"lightning", "hydra", "omegaconf"}


@pytest.mark.parametrize("part", ["backbones", "metrics"])
def test_parts_know_nothing_of_what_uses_them(part: str):
    for path in (ROOT / "src" / "fdsl" / part).glob("*.py"):
        used = {n for n in imported(path) if n.startswith("fdsl.")}
        assert all(n.startswith((f"fdsl.{part}", "fdsl.errors")) for n in used), path
        assert not tops(path) & {"lightning", "hydra", "omegaconf"}
