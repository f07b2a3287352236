import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datamodules import archive as archive_module
from datamodules import download
from datamodules.download import MVTEC_AD, VISA, Archive, DownloadError, fetch

HOLDS = "bottle/train/good/000.png"


@dataclass
class Server:
    """What a loopback server sends, how it misbehaves, and what it was asked for."""

    content: bytes
    url: str = ""
    ranges: bool = True
    status: int | None = None
    cuts: list[int] = field(default_factory=list)
    """For each coming answer, after how many bytes of its body to close the connection."""
    seen: list[str | None] = field(default_factory=list)
    """The Range header of each request."""
    sent: int = 0


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server(tar_of({HOLDS: b"x" * 300_000, "bottle/license.txt": b"free"}))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.seen.append(asked)
            if state.status is not None:
                self.send_error(state.status)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges else 0
            body = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                size = len(state.content)
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            body = body[: state.cuts.pop(0)] if state.cuts else body
            state.sent += len(body)  # before the client can have it all and the test goes on
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/data.tar.xz"
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    monkeypatch.setattr(download, "CHUNK", 4096)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "mvtec"


def tar_of(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    # Uncompressed, so that its size is known to be far above a chunk.
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return out.getvalue()


def describe(content: bytes, url: str) -> Archive:
    return Archive(
        name="data.tar.xz",
        url=url,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        extracted=len(content),
        holds=HOLDS,
        homepage="https://example.org/dataset",
        licence="free",
    )


def get(server: Server, root: Path) -> Path:
    return fetch(describe(server.content, server.url), root, progress=False)


def part(root: Path) -> Path:
    return root.parent / "data.tar.xz.part"


def leftovers(root: Path) -> list[str]:
    return sorted(p.name for p in root.parent.iterdir())


def test_fresh_download(server: Server, root: Path) -> None:
    assert get(server, root) == root
    assert (root / HOLDS).read_bytes() == b"x" * 300_000
    assert server.seen == [None]
    assert leftovers(root) == ["data.tar.xz", "mvtec"]


def test_an_empty_folder_is_filled(server: Server, root: Path) -> None:
    root.mkdir(parents=True)
    get(server, root)
    assert (root / HOLDS).is_file()


def test_nothing_is_requested_when_the_dataset_is_there(server: Server, root: Path) -> None:
    (root / HOLDS).parent.mkdir(parents=True)
    (root / HOLDS).touch()
    get(server, root)
    assert server.seen == []


def test_a_folder_with_something_else_is_left_alone(server: Server, root: Path) -> None:
    root.mkdir(parents=True)
    (root / "thesis.tex").touch()
    with pytest.raises(DownloadError, match="not empty"):
        get(server, root)
    assert (root / "thesis.tex").exists()
    assert server.seen == []


def test_the_url_overrides_the_official_address(server: Server, root: Path) -> None:
    archive = describe(server.content, "http://127.0.0.1:9/gone")
    fetch(archive, root, url=server.url, progress=False)
    assert (root / HOLDS).is_file()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/data.tar.xz"])
def test_only_http_addresses(server: Server, root: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="http"):
        fetch(describe(server.content, server.url), root, url=url, progress=False)


def test_a_part_is_resumed(server: Server, root: Path) -> None:
    root.parent.mkdir(parents=True)
    part(root).write_bytes(server.content[:100_000])
    get(server, root)
    assert server.seen == ["bytes=100000-"]
    assert server.sent == len(server.content) - 100_000
    assert (root / HOLDS).is_file()


def test_a_lost_connection_is_resumed(server: Server, root: Path) -> None:
    server.cuts = [50_000, 60_000]
    get(server, root)
    assert server.seen == [None, "bytes=50000-", "bytes=110000-"]
    assert server.sent == len(server.content)


def test_a_server_without_ranges_starts_over(server: Server, root: Path) -> None:
    server.ranges = False
    server.cuts = [50_000]
    get(server, root)
    assert server.seen == [None, "bytes=50000-"]
    assert server.sent == 50_000 + len(server.content)
    assert (root / HOLDS).read_bytes() == b"x" * 300_000


def test_a_part_of_another_file_is_fetched_again(server: Server, root: Path) -> None:
    root.parent.mkdir(parents=True)
    part(root).write_bytes(b"?" * 100_000)
    get(server, root)
    assert server.seen == ["bytes=100000-", None]
    assert (root / HOLDS).is_file()


def test_a_part_that_is_too_long_is_fetched_again(server: Server, root: Path) -> None:
    root.parent.mkdir(parents=True)
    part(root).write_bytes(server.content + b"more")
    get(server, root)
    assert server.seen == [None]


def test_giving_up_keeps_the_part(server: Server, root: Path) -> None:
    server.cuts = [1000] * download.ATTEMPTS
    with pytest.raises(DownloadError, match="Run again to go on") as caught:
        get(server, root)
    assert "https://example.org/dataset" in str(caught.value)
    assert part(root).stat().st_size == 1000 * download.ATTEMPTS
    get(server, root)
    assert server.seen[-1] == f"bytes={1000 * download.ATTEMPTS}-"


def test_progress_is_no_failure(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PROGRESS", 10_000)
    server.cuts = [10_000] * (3 * download.ATTEMPTS)
    get(server, root)
    assert len(server.seen) == 3 * download.ATTEMPTS + 1


def test_no_connection(server: Server, root: Path) -> None:
    with pytest.raises(DownloadError, match="gave up after"):
        fetch(describe(server.content, "http://127.0.0.1:9/data.tar.xz"), root, progress=False)
    assert not root.exists()


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 5), (429, 5)])
def test_only_passing_errors_are_tried_again(server: Server, root: Path, status: int, requests: int) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=f"HTTP {status}.*") as caught:
        get(server, root)
    assert len(server.seen) == requests
    assert "data.url" in str(caught.value)


def test_a_replaced_file_is_noticed_before_it_is_fetched(server: Server, root: Path) -> None:
    archive = replace(describe(server.content, server.url), size=len(server.content) + 1)
    with pytest.raises(DownloadError, match=r"replaced|page"):
        fetch(archive, root, progress=False)
    assert not part(root).exists()


def test_a_wrong_checksum_is_never_extracted(server: Server, root: Path) -> None:
    archive = replace(describe(server.content, server.url), sha256="0" * 64)
    with pytest.raises(DownloadError, match="sha256") as caught:
        fetch(archive, root, progress=False)
    assert leftovers(root) == ["data.tar.xz.corrupt"]
    for needed in ("0" * 64, archive.homepage, str(root.parent / archive.name), "corrupt"):
        assert needed in str(caught.value)


def test_a_file_put_there_by_hand_is_used(server: Server, root: Path) -> None:
    root.parent.mkdir(parents=True)
    (root.parent / "data.tar.xz").write_bytes(server.content)
    get(server, root)
    assert server.seen == []
    assert (root / HOLDS).is_file()


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"?" + data[1:]])
def test_a_wrong_file_put_there_by_hand_is_kept(server: Server, root: Path, spoil: Callable[[bytes], bytes]) -> None:
    root.parent.mkdir(parents=True)
    (root.parent / "data.tar.xz").write_bytes(spoil(server.content))
    with pytest.raises(DownloadError, match="Remove this file"):
        get(server, root)
    assert leftovers(root) == ["data.tar.xz"]


def test_too_little_space(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DownloadError, match="GB are free"):
        get(server, root)
    assert server.seen == []


def test_what_is_there_already_needs_no_space(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.parent.mkdir(parents=True)
    part(root).write_bytes(server.content[:100_000])
    free = 2 * len(server.content) - 100_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, free))
    get(server, root)
    assert (root / HOLDS).is_file()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def device(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.CHRTYPE
    return info


@pytest.mark.parametrize(
    "evil",
    [
        tarfile.TarInfo("../evil"),
        tarfile.TarInfo("a/../../evil"),
        tarfile.TarInfo("/tmp/evil"),
        tarfile.TarInfo("C:\\evil"),
        tarfile.TarInfo("..\\evil"),
        link("evil", "../../secret", tarfile.SYMTYPE),
        link("a/evil", "b/../../../secret", tarfile.SYMTYPE),
        link("evil", "/etc/passwd", tarfile.SYMTYPE),
        link("evil", "../secret", tarfile.LNKTYPE),
        device("evil"),
    ],
    ids=lambda info: f"{info.name}>{info.linkname}",
)
def test_escaping_members_are_refused(server: Server, root: Path, evil: tarfile.TarInfo) -> None:
    server.content = tar_of({HOLDS: b"x"}, evil)
    with pytest.raises(DownloadError, match="evil"):
        get(server, root)
    assert leftovers(root) == ["data.tar.xz"]
    assert not (root.parent.parent / "evil").exists()


def test_links_within_the_folder_are_extracted(server: Server, root: Path) -> None:
    server.content = tar_of({HOLDS: b"x"}, link("a/alias", "../" + HOLDS, tarfile.SYMTYPE))
    get(server, root)
    assert (root / "a" / "alias").read_bytes() == b"x"


def test_another_dataset_is_refused(server: Server, root: Path) -> None:
    server.content = tar_of({"cat.jpg": b"x"})
    with pytest.raises(DownloadError, match=HOLDS):
        get(server, root)
    assert not root.exists()


def test_a_damaged_archive_is_reported(server: Server, root: Path) -> None:
    server.content = b"no archive at all" * 1000
    with pytest.raises(DownloadError, match="could not be extracted"):
        get(server, root)
    assert not root.exists()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_extraction_never_looks_finished(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    def interrupted(member: tarfile.TarInfo, file: Path) -> None:
        if member.name.endswith(".txt"):
            raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(archive_module, "_check_member", interrupted)
        with pytest.raises((KeyboardInterrupt, DownloadError)):
            get(server, root)
    assert leftovers(root) == ["data.tar.xz"]
    get(server, root)
    assert (root / HOLDS).is_file()
    assert server.seen == [None]


def test_the_remains_of_a_killed_extraction_are_replaced(server: Server, root: Path) -> None:
    remains = root.parent / ".mvtec.extracting"
    remains.mkdir(parents=True)
    (remains / "half.png").touch()
    get(server, root)
    assert not (root / "half.png").exists()
    assert leftovers(root) == ["data.tar.xz", "mvtec"]


@pytest.mark.parametrize("official", [MVTEC_AD, VISA], ids=lambda archive: archive.name)
def test_official_archives_are_well_described(official: Archive) -> None:
    assert official.url.startswith("https://")
    assert official.url.endswith(official.name)
    assert official.homepage.startswith("https://")
    assert len(bytes.fromhex(official.sha256)) == 32
    assert official.extracted > official.size > 1e9
