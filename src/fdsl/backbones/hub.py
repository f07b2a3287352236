"""Weight files from the Hugging Face hub or an address: cached, downloaded, or a message that helps."""

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import open_clip
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

from fdsl.backbones.weights import WeightsNotFoundError

log = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds a server may keep silent before it counts as out of reach."""


def from_hub(model: str, repository: str, filenames: Sequence[str], cache_dir: str | None = None) -> Path:
    """Path of a hub repository's weight file.

    Args:
        model: whose weights they are, for messages.
        repository: ``owner/name`` on the hub.
        filenames: names the file may have, the preferred one first.
        cache_dir: the hub's cache, default the library's own.

    Raises:
        WeightsNotFoundError: if it is not in the cache and cannot be downloaded, for whatever reason.
    """
    for filename in filenames:
        cached = try_to_load_from_cache(repository, filename, cache_dir=cache_dir)
        if isinstance(cached, str):
            return Path(cached)
    reasons = []
    for filename in filenames:
        try:
            # One short question first: unlike it, the download asks for most of a minute when nobody answers.
            get_hf_file_metadata(hf_hub_url(repository, filename), timeout=TIMEOUT)
            log.info("downloading %s of %s", filename, repository)
            return Path(hf_hub_download(repository, filename, cache_dir=cache_dir))
        except Exception as error:  # every kind of network failure ends in the same advice
            reasons.append(f"{filename}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    raise _not_found(model, f"{' or '.join(filenames)} of the Hugging Face repository {repository}", reasons)


def from_url(model: str, url: str, cache_dir: str | None = None) -> Path:
    """Path of a weight file of ``open_clip`` that is published at an address only.

    Raises:
        WeightsNotFoundError: if it is not in the cache and cannot be downloaded, for whatever reason.
    """
    try:
        with _default_timeout(TIMEOUT):
            return Path(open_clip.download_pretrained_from_url(url, cache_dir=cache_dir))
    except Exception as error:  # every kind of network failure ends in the same advice
        raise _not_found(model, url, [f"{type(error).__name__}: {error}"]) from error


def _not_found(model: str, bring: str, reasons: Sequence[str]) -> WeightsNotFoundError:
    return WeightsNotFoundError(
        f"no weights for {model}: not in the cache and not to be downloaded ({'; '.join(reasons)}). "
        f"Bring {bring} and set backbone.model.weights=/path/to/file"
    )


@contextmanager
def _default_timeout(seconds: float) -> Iterator[None]:
    # open_clip's download gives its connection no timeout of its own.
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
