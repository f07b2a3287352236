"""Fetching the official archives: resumed where it broke off, verified, and extracted completely or not at all."""

import errno
import hashlib
import logging
import lzma
import posixpath
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fdsl.errors import FDSLError

log = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as lost."""
ATTEMPTS = 5
"""Attempts in a row that bring less than :data:`PROGRESS` bytes before giving up."""
PAUSE = 2.0
"""Seconds before the second attempt; doubled for each further one."""
PROGRESS = 1 << 24
TRY_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
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


MVTEC_AD = Archive(
    name="mvtec_anomaly_detection.tar.xz",
    url="https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/"
    "mvtec_anomaly_detection.tar.xz",
    sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
    size=5_264_982_680,
    extracted=5_600_000_000,
    holds="bottle/train/good",
    homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    licence="CC BY-NC-SA 4.0: not for commercial use",
)
VISA = Archive(
    name="VisA_20220922.tar",
    url="https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
    sha256="2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
    size=1_929_840_640,
    extracted=2_000_000_000,
    holds="split_csv/1cls.csv",
    homepage="https://github.com/amazon-science/spot-diff",
    licence="CC BY 4.0",
)


def fetch(archive: Archive, root: str | Path, *, url: str | None = None, progress: bool = True) -> Path:
    """Make an official dataset be in a folder; do nothing where it is already.

    The archive is kept beside the folder: as ``<name>.part`` until it is complete and verified, then as ``<name>``.
    A file put there by hand is used like one that was fetched.

    Args:
        archive: what to fetch.
        root: the dataset's folder: absent, empty, or holding the dataset.
        url: a mirror to use in place of the official address; its file must be the same.
        progress: whether to show progress bars.

    Returns:
        The folder.

    Raises:
        DownloadError: saying what went wrong, where, and how to mend it.
    """
    root = Path(root)
    if (root / archive.holds).exists():
        return root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DownloadError(
            f"{root}: is not empty, but has no {archive.holds}; nothing was changed. "
            "Choose another folder, or empty this one"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    file = root.parent / archive.name
    _check_space(archive, file)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress) as bars:
        if not file.exists():
            log.info("fetching %s, %.1f GB; licence: %s", archive.name, archive.size / 1e9, archive.licence)
            _download(archive, url or archive.url, file, bars)
        elif problem := _mismatch(archive, file, bars):
            raise DownloadError(
                f"{file}: {problem}. Remove this file and run again.\n{_by_hand(archive, file)}"
            )
        _extract(archive, file, root, bars)
    log.info("%s holds %s; %s can be removed", root, archive.name, file)
    return root


def _by_hand(archive: Archive, file: Path) -> str:
    return (
        f"By hand: get {archive.name} ({archive.size} bytes, sha256 {archive.sha256}) from {archive.homepage}, "
        f"put it at {file} and run again; or name a mirror: data.url=https://..."
    )


def _part(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _check_space(archive: Archive, file: Path) -> None:
    missing = 0 if file.exists() else max(archive.size - _size(_part(file)), 0)
    needed, free = missing + archive.extracted, shutil.disk_usage(file.parent).free
    if free < needed:
        raise DownloadError(
            f"{file.parent}: fetching and extracting {archive.name} needs {needed / 1e9:.1f} GB, but only "
            f"{free / 1e9:.1f} GB are free. Make room, or choose a folder on another disk"
        )


def _download(archive: Archive, url: str, file: Path, bars: Progress) -> None:
    """Fetch to ``<name>.part``, verify, and rename."""
    part = _part(file)
    resumed = part.exists()
    _transfer(archive, url, part, bars)
    problem = _mismatch(archive, part, bars)
    if problem and resumed:
        # What was there before may be of another file; what is fetched in one go cannot be.
        log.warning("%s: %s after resuming; fetching all of it again", part, problem)
        part.unlink()
        _transfer(archive, url, part, bars)
        problem = _mismatch(archive, part, bars)
    if problem:
        corrupt = part.replace(file.with_name(f"{file.name}.corrupt"))
        raise DownloadError(
            f"{url}: {problem}. What was fetched is kept in {corrupt} for you to look at or remove.\n"
            f"{_by_hand(archive, file)}"
        )
    part.rename(file)


def _transfer(archive: Archive, url: str, part: Path, bars: Progress) -> None:
    """Append to ``part`` until it is complete, through any number of lost connections that bring it forward."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url}: must be an http or https address")
    task = bars.add_task(archive.name, total=archive.size)
    failures = 0
    while (have := _size(part)) < archive.size:
        reason = "the connection was closed early"
        try:
            _request(archive, url, part, bars, task)
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code < 500 and error.code not in TRY_AGAIN:
                raise DownloadError(f"{url}: {reason}.\n{_by_hand(archive, part.with_suffix(''))}") from error
        except (OSError, HTTPException) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise DownloadError(f"{part}: the disk is full. Make room and run again to go on") from error
            reason = str(error) or type(error).__name__
        failures = 0 if _size(part) - have >= PROGRESS else failures + 1
        if failures == ATTEMPTS:
            raise DownloadError(
                f"{url}: gave up after {ATTEMPTS} attempts ({reason}); {_size(part)} of {archive.size} bytes are in "
                f"{part}. Run again to go on from there.\n{_by_hand(archive, part.with_suffix(''))}"
            )
        if _size(part) < archive.size:
            time.sleep(PAUSE * 2**failures)


def _request(archive: Archive, url: str, part: Path, bars: Progress, task: TaskID) -> None:
    """Append one answer to ``part``, which begins anew if the server cannot send a range."""
    have = _size(part)
    headers = {"User-Agent": "fdsl", "Accept-Encoding": "identity"} | (
        {"Range": f"bytes={have}-"} if have else {}
    )
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        length = answer.headers.get("Content-Length")
        start = have if answer.status == HTTPStatus.PARTIAL_CONTENT else 0
        if length is not None and start + int(length) != archive.size:
            raise DownloadError(
                f"{url}: is not the file of {archive.size} bytes that was expected, but one of "
                f"{start + int(length)}; it was replaced, or this is a page about it.\n"
                f"{_by_hand(archive, part.with_suffix(''))}"
            )
        with part.open("ab" if start else "wb") as out:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                bars.update(task, completed=out.tell())


def _mismatch(archive: Archive, file: Path, bars: Progress) -> str | None:
    """Say how a file differs from the archive; None if it does not."""
    if (size := _size(file)) != archive.size:
        return f"it has {size} bytes, not {archive.size}"
    task = bars.add_task("verifying", total=size)
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while chunk := data.read(CHUNK):
            digest.update(chunk)
            bars.advance(task, len(chunk))
    found = digest.hexdigest()
    return None if found == archive.sha256 else f"its sha256 is {found}, not {archive.sha256}"


def _extract(archive: Archive, file: Path, root: Path, bars: Progress) -> None:
    """Extract beside ``root`` and put it in place when it is complete."""
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
            raise DownloadError(
                f"{file}: has no {archive.holds} in it; this is not the dataset that was expected"
            )
        if root.is_dir():
            root.rmdir()
        unfinished.rename(root)
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError) as error:
        raise DownloadError(
            f"{file}: could not be extracted to {root} ({error}). The archive is kept; mend this and run again"
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
        raise DownloadError(
            f"{file}: holds {member.name!r}{f' -> {member.linkname!r}' if member.linkname else ''}, which reaches "
            "outside of its folder or is a device; nothing was extracted. Do not use this file"
        )
