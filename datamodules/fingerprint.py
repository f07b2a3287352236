"""SHA-256 of files by content, remembered between runs so that an unchanged file is read once.

A file counts as unchanged while its path, size and time of modification are.
"""

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from fdsl.backbones.weights import sha256_of_file

log = logging.getLogger(__name__)

HASHES_FILE = "hashes.sqlite"


class ContentHashes:
    """A database of content hashes; safe with several processes.

    Args:
        path: of the SQLite file, made when first needed; None remembers nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def of(self, files: Sequence[Path]) -> list[str]:
        """Return the hexadecimal SHA-256 of each file.

        Raises:
            OSError: if a file cannot be read.
        """
        if self.path is None:
            return [sha256_of_file(file) for file in files]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._remembered(files, self.path)
        except sqlite3.DatabaseError as error:
            log.warning("%s cannot be used (%s): all files are read again", self.path, error)
            return [sha256_of_file(file) for file in files]

    def _remembered(self, files: Sequence[Path], path: Path) -> list[str]:
        found: list[str] = []
        with sqlite3.connect(path, timeout=60) as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INT, mtime_ns INT, sha256 TEXT)"
            )
            fresh: list[tuple[str, int, int, str]] = []
            for file in files:
                name, stat = str(file.resolve()), file.stat()
                state = (stat.st_size, stat.st_mtime_ns)
                row = database.execute("SELECT size, mtime_ns, sha256 FROM hashes WHERE path = ?", (name,)).fetchone()
                if row is None or row[:2] != state:
                    row = (*state, sha256_of_file(file))
                    fresh.append((name, *row))
                found.append(row[2])
            database.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", fresh)
        database.close()
        return found
