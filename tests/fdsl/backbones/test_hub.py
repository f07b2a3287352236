import socket
from pathlib import Path
from urllib.error import URLError

import open_clip
import pytest

from fdsl.backbones import OpenCLIPBackbone, TimmBackbone, WeightsNotFoundError, hub


@pytest.fixture
def unreachable(monkeypatch):
    """A hub that never answers, and an empty cache."""

    def fail(*arguments, **options):
        raise ConnectionError("name or service not known")

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr(hub, "get_hf_file_metadata", fail)
    monkeypatch.setattr(hub, "hf_hub_download", None)


def test_the_cache_is_asked_first(monkeypatch):
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repo, name, cache_dir: "/c/b" if name == "b" else None)
    monkeypatch.setattr(hub, "get_hf_file_metadata", None)
    assert hub.from_hub("model", "some/repository", ["a", "b"]) == Path("/c/b")


def test_downloads_the_first_file_there_is(monkeypatch):
    def metadata(url, timeout):
        if url.endswith("/a"):
            raise FileNotFoundError("404")

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr(hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(hub, "hf_hub_download", lambda repo, name, cache_dir: f"/{cache_dir}/{repo}/{name}")
    assert hub.from_hub("model", "some/repository", ["a", "b"], "cache") == Path("/cache/some/repository/b")


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(
    ("backbone", "repository", "filename"),
    [
        (OpenCLIPBackbone, "timm/vit_large_patch14_clip_336.openai", "open_clip_model.safetensors"),
        (TimmBackbone, "timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors"),
    ],
)
def test_an_unreachable_hub_says_what_to_bring_and_where_to_name_it(backbone, repository, filename):
    with pytest.raises(WeightsNotFoundError) as caught:
        backbone()
    for part in (repository, filename, "name or service not known", "backbone.model.weights=/path/to/file"):
        assert part in str(caught.value)


def test_an_unreachable_address_says_the_same_and_leaves_the_timeout(monkeypatch):
    def fail(url, cache_dir):
        assert socket.getdefaulttimeout() == hub.TIMEOUT
        raise URLError("timed out")

    monkeypatch.setattr(open_clip, "download_pretrained_from_url", fail)
    before = socket.getdefaulttimeout()
    with pytest.raises(WeightsNotFoundError, match=r"Bring https://x/y\.pt and set backbone\.model\.weights="):
        hub.from_url("model", "https://x/y.pt")
    assert socket.getdefaulttimeout() == before
