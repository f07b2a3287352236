"""Official archives: what identifies one, verifying a file, and extracting it completely or not at all."""

import hashlib
import lzma
import posixpath
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from rich.progress import Progress

from fdsl.errors import FDSLError

CHUNK = 1 << 20


class DownloadError(FDSLError):
    """An archive that could not be fetched, verified or extracted."""


@dataclass(frozen=True)
class Archive:
    """An official archive.

    Attributes:
        name: file name.
        url: official address.
        sha256: checksum of the file.
        size: of the file, in bytes.
        extracted: what it needs once extracted, in bytes.
        holds: a path in the extracted tree, by which a complete dataset is recognised.
        homepage: where a person finds it.
        licence: terms of use in a few words.
    """

    name: str
    url: str
    sha256: str
    size: int
    extracted: int
    holds: str
    homepage: str
    licence: str

    def by_hand(self, file: Path) -> str:
        """Tell a person how to do without the download."""
        return (
            f"By hand: get {self.name} ({self.size} bytes, sha256 {self.sha256}) from {self.homepage}, "
            f"put it at {file} and run again; or name a mirror: data.url=https://..."
        )


def mismatch(archive: Archive, file: Path, bars: Progress) -> str | None:
    """Say how a file differs from the archive; None if it does not."""
    if (size := file.stat().st_size) != archive.size:
        return f"it has {size} bytes, not {archive.size}"
    task = bars.add_task("verifying", total=size)
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while chunk := data.read(CHUNK):
            digest.update(chunk)
            bars.advance(task, len(chunk))
    found = digest.hexdigest()
    return None if found == archive.sha256 else f"its sha256 is {found}, not {archive.sha256}"


def extract(archive: Archive, file: Path, root: Path, bars: Progress) -> None:
    """Extract a verified file beside ``root``, and put it in place when it is complete.

    Raises:
        DownloadError: if the file is damaged, reaches out of its folder or is another dataset, or if the disk is
            full; nothing of what was extracted is left.
    """
    unfinished = root.parent / f".{root.name}.extracting"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    task = bars.add_task("extracting", total=archive.size)
    try:
        with file.open("rb") as raw, tarfile.open(fileobj=raw) as tar:
            for member in tar:
                _check_member(member, file)
                tar.extract(member, unfinished, filter="data")
                bars.update(task, completed=raw.tell())
        if not (unfinished / archive.holds).exists():
            raise DownloadError(f"{file}: has no {archive.holds} in it, so it is not {archive.name}")
        if root.is_dir():
            root.rmdir()
        unfinished.rename(root)
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError) as error:
        raise DownloadError(
            f"{file}: could not be extracted to {root} ({error}). The file is kept: mend this and run again"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_member(member: tarfile.TarInfo, file: Path) -> None:
    """Refuse what reaches out of the folder, whatever the filter of this version of tarfile lets through."""
    target = member.linkname
    if member.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), target))
    # Windows' reading of a path knows drives and both kinds of slashes.
    paths = [PureWindowsPath(path) for path in (member.name, target)]
    outside = any(path.anchor or ".." in path.parts for path in paths)
    if outside or not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        link = f" -> {member.linkname!r}" if member.linkname else ""
        raise DownloadError(
            f"{file}: holds {member.name!r}{link}, which reaches out of its folder or is a device. "
            "Nothing was extracted; do not use this file"
        )
