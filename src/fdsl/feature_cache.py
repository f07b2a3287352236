"""Backbone outputs on disk, so that a test of images that were seen before needs neither to decode nor to encode them.

A cache is a folder of shelves. A shelf holds what one backbone makes of images in one way (weights, blocks, size,
preprocessing, precision, device, code); an entry is one image, named by the hash of its content. Entries are written
whole or not at all, are mapped into memory when read, and carry a checksum: what is damaged counts as absent.
"""

import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fdsl.backbones import Backbone, Encoding

log = logging.getLogger(__name__)

ABOUT_FILE = "about.json"
SUFFIX, PART_SUFFIX = ".safetensors", ".part"
ABANDONED_S = 3600.0  # a part this old belongs to no living process
FREE_BYTES = 2 << 30  # left on the disk whatever the limit
RECOUNT = 20  # the folder is measured again after writing a twentieth of the limit


class DamagedEntryError(ValueError):
    """An entry that is truncated, altered or no entry at all."""


def content_of(image: Tensor) -> str:
    """Name a preprocessed image (3, S, S) by its values, where no file stands for it."""
    return sha256(image.contiguous().cpu().numpy().tobytes()).hexdigest()


def read_entry(path: Path) -> Encoding:
    """Read one entry: tokens (L, N, C) and image feature (D,), fp32.

    Raises:
        FileNotFoundError: if there is none.
        DamagedEntryError: if it is not what was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tokens, feature = file.get_tensor("tokens"), file.get_tensor("image_feature")
            intact = (file.metadata() or {}).get("crc32") == _checksum(tokens, feature)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise DamagedEntryError(f"{path}: {error}") from error
    if not intact:
        raise DamagedEntryError(f"{path}: its checksum differs")
    return Encoding(tokens.float(), feature.float())


@dataclass
class FeatureCache:
    """One shelf of a cache, for one run.

    Safe with several processes: they may write the same entry, and evict what another one reads.

    Attributes:
        root: the cache's folder.
        made_with: everything that an entry depends on besides the image; plain values.
        dtype: that tokens are stored as. Half precision halves the disk and changes scores a little; what is stored
            is what is used, by the run that writes it as by those that read it.
        limit: bytes that all shelves together may take. What this run has read or written is never evicted for more
            of it: a test set larger than the limit would else push out its own beginning before it is read again.
    """

    root: Path
    made_with: Mapping[str, Any]
    dtype: torch.dtype = torch.float32
    limit: int = 50 << 30
    _since: float = field(default_factory=time.time)
    _size: int | None = None
    _unmeasured: int = 0
    _full: bool = False

    @property
    def folder(self) -> Path:
        """The shelf's own folder."""
        content = {**self.made_with, "dtype": str(self.dtype)}
        return self.root / sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def read(self, content: str) -> Encoding | None:
        """Return the features of an image, tokens (L, N, C) and image feature (D,); None if it must be encoded."""
        path = self._path(content)
        try:
            found = read_entry(path)
            os.utime(path)  # used now: not the next to go
        except FileNotFoundError:
            return None
        except DamagedEntryError as error:
            log.warning("damaged entry of the feature cache, encoded again: %s", error)
            path.unlink(missing_ok=True)
            return None
        return found

    def write(self, content: str, made: Encoding) -> Encoding:
        """Keep the features of an image, if there is room.

        Returns:
            the features as they will be read.
        """
        tokens, feature = made.tokens.cpu().to(self.dtype).contiguous(), made.image_feature.cpu().float().contiguous()
        if not self._full:
            metadata = {"crc32": _checksum(tokens, feature)}
            data = save({"tokens": tokens, "image_feature": feature}, metadata)
            try:
                self._keep(content, data)
            except OSError as error:
                self._stop(f"it cannot be written ({error})")
        return Encoding(tokens.float().to(made.tokens.device), feature.to(made.tokens.device))

    def complete(
        self, backbone: Backbone, images: Tensor, contents: Sequence[str], known: Sequence[Encoding | None]
    ) -> Encoding:
        """Encode what is not known of a batch, and keep it.

        Args:
            backbone: what the shelf is of.
            images: preprocessed, all of the batch (B, 3, S, S), or those alone that are not known.
            contents: names of the B images.
            known: what :meth:`read` found of each.

        Returns:
            the batch, (L, B, N, C) and (B, D), on the device of ``images``.
        """
        rows = list(known)
        if fresh := [i for i, each in enumerate(rows) if each is None]:
            made = backbone(images if len(images) == len(fresh) else images[fresh])
            for place, i in enumerate(fresh):
                rows[i] = self.write(contents[i], Encoding(made.tokens[:, place], made.image_feature[place]))
        found = [each for each in rows if each is not None]
        tokens = torch.stack([each.tokens.to(images.device) for each in found], dim=1)
        return Encoding(tokens, torch.stack([each.image_feature.to(images.device) for each in found]))

    def encoder(self, backbone: Backbone) -> Callable[[Tensor], Encoding]:
        """Return the backbone as a function that remembers images (B, 3, S, S) by their values."""

        def encode(images: Tensor) -> Encoding:
            contents = [content_of(image) for image in images]
            return self.complete(backbone, images, contents, [self.read(content) for content in contents])

        return encode

    def _keep(self, content: str, data: bytes) -> None:
        if not self._room(len(data)):
            return
        folder = self.folder
        if not (folder / ABOUT_FILE).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            about = json.dumps({**self.made_with, "dtype": str(self.dtype)}, indent=1) + "\n"
            _write(folder / ABOUT_FILE, about.encode())
        path = self._path(content)
        _write(path, data)
        self._unmeasured += len(data)

    def _room(self, more: int) -> bool:
        if self._size is None or self._unmeasured > self.limit // RECOUNT:
            self._size, self._unmeasured = size_of(self.root), 0
        self.root.mkdir(parents=True, exist_ok=True)
        over = self._size + self._unmeasured + more - self.limit
        lacking = more + FREE_BYTES - shutil.disk_usage(self.root).free
        if max(over, lacking) > 0:
            freed = evict(self.root, max(over, lacking, self.limit // RECOUNT), self._since)
            self._size -= freed
            if freed < max(over, lacking):
                self._stop(f"{self.limit / 1e9:.1f} GB are in use" if over > 0 else "its disk is nearly full")
                return False
        return True

    def _stop(self, reason: str) -> None:
        self._full = True
        log.warning(
            "the feature cache %s takes no more in this run: %s; the rest is encoded each time", self.root, reason
        )

    def _path(self, content: str) -> Path:
        return self.folder / f"{content}{SUFFIX}"


def shelves(root: Path) -> Iterator[Path]:
    """Yield the folders of a cache that hold entries; anything else below it is left alone."""
    yield from sorted(about.parent for about in root.glob(f"*/{ABOUT_FILE}"))


def entries(shelf: Path) -> Iterator[Path]:
    """Yield the entries of a shelf."""
    yield from shelf.glob(f"*{SUFFIX}")


def size_of(root: Path) -> int:
    """Return the bytes that all entries take; removes what dead processes left half written."""
    total = 0
    for shelf in shelves(root):
        for path in shelf.iterdir():
            try:
                stat = path.stat()
                if path.suffix == PART_SUFFIX and time.time() - stat.st_mtime > ABANDONED_S:
                    path.unlink()
                total += stat.st_size
            except FileNotFoundError:  # evicted meanwhile
                continue
    return total


def evict(root: Path, wanted: int, before: float) -> int:
    """Remove the entries that were used longest ago, none used since ``before``, until ``wanted`` bytes are free.

    Returns:
        bytes that were freed, which may be fewer.
    """
    found: list[tuple[float, int, Path]] = []
    for path in (entry for shelf in shelves(root) for entry in entries(shelf)):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if stat.st_mtime < before:
            found.append((stat.st_mtime, stat.st_size, path))
    freed = 0
    for _, size, path in sorted(found):
        if freed >= wanted:
            break
        path.unlink(missing_ok=True)
        freed += size
    return freed


def remove(shelf: Path) -> None:
    """Remove a shelf: its entries, then what says what they were; other files in its folder are left alone."""
    for path in [*entries(shelf), *shelf.glob(f"*{PART_SUFFIX}"), shelf / ABOUT_FILE]:
        path.unlink(missing_ok=True)
    if not any(shelf.iterdir()):
        shelf.rmdir()


def _checksum(*tensors: Tensor) -> str:
    value = 0
    for tensor in tensors:
        value = zlib.crc32(tensor.view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{uuid4().hex}{PART_SUFFIX}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
