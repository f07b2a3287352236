"""Trained heads, kept by what they depend on, so that jobs that need the same head share one training.

A head depends on the auxiliary data, the backbone, how it is trained and the code that does so; not on shots, windows,
fusion or the references of the test. Its key is a hash of all that. The first job that needs a head trains it while the
others wait; the lock of a job that dies is the operating system's to release.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fdsl.backbones.weights import sha256_of_file

log = logging.getLogger(__name__)


def key_of(description: Mapping[str, Any]) -> str:
    """Hash a plain description of everything a head depends on."""
    return sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class StoredHead:
    """A head of the store.

    Attributes:
        file: its safetensors file.
        trained_by: which run trained it, when and where.
    """

    file: Path
    trained_by: dict[str, Any]


@dataclass(frozen=True)
class HeadStore:
    """A folder of ``<key>.safetensors``, each with a ``<key>.json`` that says what it depends on and who trained it."""

    folder: Path

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the key's lock; waits, and says so, while another job trains the same head."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for head %s, which another job is training", key)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def find(self, key: str) -> StoredHead | None:
        """Return the head of a key; None if there is none, or if what is there is damaged."""
        file, beside = self._file(key), self._file(key).with_suffix(".json")
        try:
            content = json.loads(beside.read_text("utf-8"))
            if sha256_of_file(file) == content["sha256"]:
                return StoredHead(file, content["trained_by"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            pass
        log.warning("%s is damaged; training this head again", file)
        return None

    def publish(
        self, key: str, head: Path, description: Mapping[str, Any], trained_by: Mapping[str, Any]
    ) -> StoredHead:
        """Put a trained head in the store; a reader meets all of it or nothing."""
        file = self._file(key)
        content = {"sha256": sha256_of_file(head), "trained_by": dict(trained_by), "depends_on": dict(description)}
        part, beside = file.with_suffix(".part"), file.with_suffix(".json")
        beside_part = file.with_suffix(".json.part")
        shutil.copyfile(head, part)
        beside_part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(file)
        beside_part.replace(beside)
        return StoredHead(file, dict(trained_by))

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"
