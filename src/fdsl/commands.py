"""The installed command ``fdsl``."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fdsl import feature_cache
from fdsl.feature_cache import ABOUT_FILE, DamagedEntryError, entries, read_entry, shelves

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Few-shot anomaly detection by FDSL.")
cache = typer.Typer(no_args_is_help=True, help="The features of whole images that runs keep on disk.")
app.add_typer(cache, name="cache")

Folder = Annotated[Path | None, typer.Option("--folder", help="as cache.features; by default $FDSL_CACHE/features")]
Shelves = Annotated[list[str] | None, typer.Argument(help="shelves, as `fdsl cache show` names them; none: all")]


@app.callback()
def main() -> None:
    """Keep ``cache`` a command of its own while there is no other."""


@cache.command()
def show(folder: Folder = None) -> None:
    """List the shelves: what each holds features of, and what it takes."""
    root = _root(folder)
    made = Table(title=str(root), title_justify="left")
    for name in ("shelf", "backbone", "size", "dtype", "images", "MB", "last used"):
        made.add_column(name, justify="right" if name in ("size", "images", "MB") else "left")
    total = 0
    for shelf in shelves(root):
        about = json.loads((shelf / ABOUT_FILE).read_text("utf-8"))
        stats = [entry.stat() for entry in entries(shelf)]
        size = sum(stat.st_size for stat in stats)
        total += size
        used = _date(max((stat.st_mtime for stat in stats), default=0.0))
        model = about.get("backbone", {})
        name = model.get("name") or str(model.get("_target_", "?")).rsplit(".", 1)[-1]
        name = f"{name} {model.get('blocks', '')}".strip()
        dtype = str(about["dtype"]).removeprefix("torch.")
        made.add_row(shelf.name, name, f"{about.get('image_size')}", dtype, f"{len(stats)}", f"{size / 1e6:.1f}", used)
    Console().print(made)
    free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free
    typer.echo(f"{total / 1e9:.2f} GB in all, {free / 1e9:.0f} GB of disk are free")


@cache.command()
def verify(names: Shelves = None, folder: Folder = None) -> None:
    """Read every entry, and remove what is damaged; exit status 1 if anything was."""
    root = _root(folder)
    found = [entry for shelf in _chosen(root, names) for entry in entries(shelf)]
    damaged = 0
    for path in track(found, description="reading", console=Console(stderr=True)):
        try:
            read_entry(path)
        except FileNotFoundError:  # evicted meanwhile
            continue
        except DamagedEntryError as error:
            damaged += 1
            path.unlink(missing_ok=True)
            typer.echo(f"removed {error}", err=True)
    typer.echo(f"{len(found) - damaged} of {len(found)} entries are as they were written")
    if damaged:
        raise typer.Exit(1)


@cache.command()
def clear(
    names: Shelves = None,
    folder: Folder = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Remove shelves; anything else in the folder is left alone."""
    root = _root(folder)
    chosen = _chosen(root, names)
    size = sum(entry.stat().st_size for shelf in chosen for entry in entries(shelf))
    if chosen and not yes:
        typer.confirm(f"remove {len(chosen)} shelves, {size / 1e9:.2f} GB, of {root}?", abort=True)
    for shelf in chosen:
        feature_cache.remove(shelf)
    typer.echo(f"removed {len(chosen)} shelves, {size / 1e9:.2f} GB")


def _root(folder: Path | None) -> Path:
    found = folder or Path(os.environ.get("FDSL_CACHE", "~/.cache/fdsl")) / "features"
    return found.expanduser()


def _chosen(root: Path, names: list[str] | None) -> list[Path]:
    there = {shelf.name: shelf for shelf in shelves(root)}
    if unknown := [name for name in names or () if name not in there]:
        typer.echo(f"error: no shelf {', '.join(unknown)} in {root}; there are {', '.join(there) or 'none'}", err=True)
        raise typer.Exit(2)
    return [there[name] for name in (names or there)]


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d") if seconds else "-"
