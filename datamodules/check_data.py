"""Check every file of a dataset and list all problems: ``python -m datamodules.check_data mvtec ROOT``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from datamodules import READERS
from datamodules.check import content_problems, file_problems, repeated
from datamodules.samples import DatasetError


def main(arguments: Sequence[str] | None = None) -> int:
    """Decode every image and mask of a dataset; the exit status is 1 where there are problems."""
    parser = argparse.ArgumentParser(prog="python -m datamodules.check_data", description=main.__doc__)
    parser.add_argument("dataset", choices=sorted(READERS))
    parser.add_argument("root", type=Path)
    given = parser.parse_args(arguments)
    try:
        samples, found = READERS[given.dataset](given.root)
    except DatasetError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    problems = [p.text for p in found] + repeated(samples) + file_problems(given.root, samples)
    broken = {p.split(": ", 1)[0] for p in problems}
    sound = [s for s in samples if str(given.root / s.path) not in broken]
    problems += content_problems(given.root, track(sound, "decoding", console=Console(stderr=True)))
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    categories = len({s.category for s in samples})
    sys.stdout.write(f"{given.root}: {len(samples)} images, {categories} categories, {len(problems)} problems\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
