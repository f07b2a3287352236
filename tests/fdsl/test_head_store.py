import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fdsl.head_store import HeadStore, key_of

HOLD = """
import sys, time
from pathlib import Path
from fdsl.head_store import HeadStore
with HeadStore(Path(sys.argv[1])).lock("k"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> HeadStore:
    return HeadStore(tmp_path / "heads")


@pytest.fixture
def head(tmp_path: Path) -> Path:
    path = tmp_path / "head.safetensors"
    path.write_bytes(b"weights")
    return path


def test_a_key_follows_the_content_and_not_the_order():
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1, "b": [2]}) != key_of({"a": 1, "b": [3]})


def test_what_is_published_is_found(store: HeadStore, head: Path):
    with store.lock("k"):
        assert store.find("k") is None
        store.publish("k", head, {"lr": 1}, {"run_dir": "here"})
    found = store.find("k")
    assert found.file.read_bytes() == b"weights"
    assert found.trained_by == {"run_dir": "here"}
    assert json.loads((store.folder / "k.json").read_text())["depends_on"] == {"lr": 1}
    assert store.find("other") is None
    assert not list(store.folder.glob("*.part"))


@pytest.mark.parametrize("damage", ["head", "description", "half"])
def test_what_is_damaged_is_not_used(damage: str, store: HeadStore, head: Path, caplog: pytest.LogCaptureFixture):
    with store.lock("k"):
        store.publish("k", head, {}, {})
    if damage == "head":
        (store.folder / "k.safetensors").write_bytes(b"weight")
    elif damage == "description":
        (store.folder / "k.json").write_text("{")
    else:
        (store.folder / "k.safetensors").unlink()
    assert store.find("k") is None
    assert ("damaged" in caplog.text) == (damage != "half")


def test_the_lock_of_a_job_that_was_killed_does_not_block(store: HeadStore):
    job = subprocess.Popen([sys.executable, "-c", HOLD, str(store.folder)], stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "held\n"
    job.kill()
    job.wait()
    begun = time.monotonic()
    with store.lock("k"):
        pass
    assert time.monotonic() - begun < 5
