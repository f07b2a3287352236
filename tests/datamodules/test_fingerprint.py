import hashlib
import os
from pathlib import Path

import pytest

from datamodules.fingerprint import ContentHashes


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_bytes(file.name.encode())
    index = tmp_path / "deep" / "hashes.sqlite"
    read = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return sha256(path)

    monkeypatch.setattr("datamodules.fingerprint.sha256_of_file", counted)
    for _ in range(2):
        assert ContentHashes(index).of(files) == [sha256(file) for file in files]
    assert read == ["a", "b"]
    files[0].write_bytes(b"c")
    os.utime(files[0], ns=(1, 1))  # an older copy put in its place counts as changed too
    assert ContentHashes(index).of(files) == [sha256(file) for file in files]
    assert read == ["a", "b", "a"]


def test_a_broken_index_costs_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file, index = tmp_path / "a", tmp_path / "hashes.sqlite"
    file.write_bytes(b"a")
    index.write_bytes(b"no database" * 1000)
    assert ContentHashes(index).of([file]) == [sha256(file)]
    assert "are read again" in caplog.text
    assert ContentHashes(None).of([file]) == [sha256(file)]
