"""Fetching the official archives: resumed where it broke off, verified, then extracted."""

import errno
import logging
import shutil
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from datamodules.archive import CHUNK, Archive, DownloadError, extract, mismatch

__all__ = ["MVTEC_AD", "VISA", "Archive", "DownloadError", "fetch"]

log = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as lost."""
PROGRESS = 1 << 24
"""Bytes that an attempt must bring in order not to count as a failure."""
ATTEMPTS = 5
"""Failures in a row after which to give up."""
PAUSE = 2.0
"""Seconds between attempts, doubled by each failure."""
TRY_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

MVTEC_AD = Archive(
    name="mvtec_anomaly_detection.tar.xz",
    url="https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/"
    "420938113-1629960298/mvtec_anomaly_detection.tar.xz",
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

    The archive is kept beside the folder: as ``<name>.part`` until it is complete and verified, then as
    ``<name>``. A file put there by hand is used like one that was fetched.

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
        elif problem := mismatch(archive, file, bars):
            raise DownloadError(f"{file}: {problem}. Remove this file and run again.\n{archive.by_hand(file)}")
        extract(archive, file, root, bars)
    log.info("%s holds %s; %s can be removed", root, archive.name, file)
    return root


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
    _transfer(archive, url, file, bars)
    problem = mismatch(archive, part, bars)
    if problem and resumed:
        # What was there before may be of another file; what is fetched in one run is not.
        log.warning("%s: %s after resuming; fetching all of it again", part, problem)
        part.unlink()
        _transfer(archive, url, file, bars)
        problem = mismatch(archive, part, bars)
    if problem:
        corrupt = part.replace(file.with_name(f"{file.name}.corrupt"))
        raise DownloadError(
            f"{url}: {problem}. What was fetched is kept in {corrupt} to be looked at or removed.\n"
            f"{archive.by_hand(file)}"
        )
    part.rename(file)


def _transfer(archive: Archive, url: str, file: Path, bars: Progress) -> None:
    """Append to ``<name>.part`` until it is complete, over as many connections as that takes."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url}: must be an http or https address")
    part = _part(file)
    task = bars.add_task(archive.name, total=archive.size)
    failures = 0
    while (have := _size(part)) < archive.size:
        reason = "the connection was closed early"
        try:
            _request(archive, url, file, bars, task)
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in TRY_AGAIN:
                raise DownloadError(f"{url}: {reason}.\n{archive.by_hand(file)}") from error
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DownloadError(f"{part}: the disk is full. Make room, and run again to go on") from error
            reason = str(error) or type(error).__name__
        gained = _size(part) - have
        failures = 0 if gained >= PROGRESS else failures + 1
        if have + gained >= archive.size:
            return
        if failures == ATTEMPTS:
            raise DownloadError(
                f"{url}: gave up after {ATTEMPTS} attempts ({reason}); {part} has {have + gained} of "
                f"{archive.size} bytes. Run again to go on from there.\n{archive.by_hand(file)}"
            )
        time.sleep(PAUSE * 2**failures)


def _request(archive: Archive, url: str, file: Path, bars: Progress, task: TaskID) -> None:
    """Append one answer to ``<name>.part``, which begins anew if the server does not send the rest alone."""
    part = _part(file)
    have = _size(part)
    headers = {"User-Agent": "fdsl", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        length = answer.headers.get("Content-Length")
        start = have if answer.status == HTTPStatus.PARTIAL_CONTENT else 0
        if length is not None and start + int(length) != archive.size:
            raise DownloadError(
                f"{url}: is a file of {start + int(length)} bytes, not {archive.size}: it was replaced, or this is "
                f"a page about it.\n{archive.by_hand(file)}"
            )
        with part.open("ab" if start else "wb") as out:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                bars.update(task, completed=out.tell())
