"""Write ``meta.json`` for a dataset, as upstream's workflow wants: ``python -m datamodules.write_meta mvtec ROOT``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.meta import META_FILE, write_meta
from datamodules.mvtec import read_mvtec_tree
from datamodules.samples import DatasetError
from datamodules.visa import read_visa_tree
from fdsl.errors import FDSLError

TREES = {"mvtec": read_mvtec_tree, "visa": read_visa_tree}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write meta.json from a dataset's official tree; the exit status is 2 where that is not possible."""
    parser = argparse.ArgumentParser(prog="python -m datamodules.write_meta", description=main.__doc__)
    parser.add_argument("dataset", choices=sorted(TREES))
    parser.add_argument("root", type=Path)
    parser.add_argument("--force", action="store_true", help=f"replace an existing {META_FILE}")
    given = parser.parse_args(arguments)
    try:
        if (given.root / META_FILE).exists() and not given.force:
            raise FDSLError(f"{given.root / META_FILE} exists; replace it with --force")
        found = TREES[given.dataset](given.root)
        if found.problems:
            mend = "mend the dataset before listing it"
            raise DatasetError(given.root, [p.text for p in found.problems], mend)
    except FDSLError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{write_meta(given.root, found.samples)}: {len(found.samples)} images\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
