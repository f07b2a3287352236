"""Reference banks on disk: safetensors files that say what was encoded and how, and are refused where that differs.

The windows of a few references take longer to encode than a whole test image; written once, later tests read them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fdsl.backbones.weights import sha256_of_tensors
from fdsl.errors import FDSLError
from fdsl.reference import ReferenceBank, References

METADATA_KEY = "fdsl_bank"


class BankFileError(FDSLError):
    """A bank file that is missing, damaged, or of other references, weights or windows."""


def save_bank(path: Path, bank: ReferenceBank, description: Mapping[str, Any]) -> None:
    """Write a bank with what it was made from, in one step, so that no reader meets half a file."""
    tensors = {"tokens": bank.tokens.cpu().contiguous(), "image_feature": bank.image_feature.cpu().contiguous()}
    content = {"made_from": dict(description), "sha256": sha256_of_tensors(tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={METADATA_KEY: json.dumps(content, sort_keys=True)})
    part.chmod(0o644)  # safetensors makes files for their owner alone
    part.replace(path)


def check_bank(path: Path, description: Mapping[str, Any]) -> str:
    """Check what a bank was made from, without reading its tokens.

    Returns:
        the digest of its tensors.

    Raises:
        BankFileError: if it is missing or no bank, or naming the first thing that differs.
    """
    if not path.is_file():
        inside = path.parent / "banks" / path.name
        mend = f"set memory.load={inside.parent}" if inside.is_file() else "write it with memory.save=true"
        raise BankFileError(f"{path}: no such bank; {mend}, or drop memory.load")
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})[METADATA_KEY])
            made_from, digest = dict(content["made_from"]), str(content["sha256"])
    except Exception as error:  # safetensors and json each raise their own kinds
        raise BankFileError(f"{path}: not a bank file that fdsl can read ({error}); write it again") from error
    wanted: dict[str, Any] = json.loads(json.dumps(dict(description)))
    for key in sorted(wanted.keys() | made_from.keys()):
        if made_from.get(key) != wanted.get(key):
            raise BankFileError(
                f"{path}: made with {key} {_short(made_from.get(key))}, this run has {_short(wanted.get(key))}; drop "
                "memory.load, or use the settings and references that it was made with"
            )
    return digest


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:100] + "..."


def load_bank(path: Path, description: Mapping[str, Any]) -> ReferenceBank:
    """Read a bank that must have been made from what ``description`` says.

    Raises:
        BankFileError: see :func:`check_bank`; or if its tensors are not those that were written.
    """
    digest = check_bank(path, description)
    tensors = load_file(path)
    if digest != sha256_of_tensors(tensors):
        raise BankFileError(f"{path}: damaged (its SHA-256 is not the one it was written with); write it again")
    return ReferenceBank(**tensors)


@dataclass(frozen=True)
class BankFiles:
    """Where a test's banks are read from or written to: ``<folder>/<category>.<kind>.safetensors``.

    Attributes:
        load: folder to read from, in place of encoding.
        save: folder to write to.
        made_from: by category, and by kind of bank as :class:`fdsl.reference.References` names them, what the bank is
            made from. Kinds that are not listed are not needed.
    """

    load: Path | None = None
    save: Path | None = None
    made_from: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse a folder to read from that lacks a bank, or holds one of something else.

        Raises:
            BankFileError: see :func:`check_bank`.
        """
        if self.load is not None:
            for category, kinds in self.made_from.items():
                for kind, description in kinds.items():
                    check_bank(_path(self.load, category, kind), description)

    def read(self, category: str) -> References | None:
        """Read the banks of one category; None if they are not to be read.

        Raises:
            BankFileError: see :func:`load_bank`.
        """
        if self.load is None:
            return None
        found = {kind: load_bank(_path(self.load, category, kind), d) for kind, d in self.made_from[category].items()}
        return References(found.get("whole"), found.get("windows"))

    def write(self, category: str, references: References) -> None:
        """Write the banks of one category, if they are to be written."""
        if self.save is not None:
            for kind, description in self.made_from[category].items():
                save_bank(_path(self.save, category, kind), getattr(references, kind), description)


def _path(folder: Path, category: str, kind: str) -> Path:
    return folder / f"{category}.{kind}.safetensors"
