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
from fdsl.detector import Detector
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
    part.replace(path)


def check_bank(path: Path, description: Mapping[str, Any]) -> str:
    """Check what a bank was made from, without reading its tokens.

    Returns:
        the digest of its tensors.

    Raises:
        BankFileError: if it is missing or no bank, or naming the first thing that differs.
    """
    if not path.is_file():
        raise BankFileError(f"{path}: no such bank; write it with memory.save=true, or drop memory.load")
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})[METADATA_KEY])
            made_from, digest = dict(content["made_from"]), str(content["sha256"])
    except Exception as error:  # safetensors and json each raise their own kinds
        raise BankFileError(f"{path}: not a bank file that fdsl can read ({error}); write it again") from error
    for key, value in json.loads(json.dumps(dict(description))).items():
        if made_from.get(key) != value:
            raise BankFileError(
                f"{path}: made with {key} {made_from.get(key)}, this run has {value}; drop memory.load, or use the "
                "settings and references that it was made with"
            )
    return digest


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
    """Where a test's banks are read from or written to: ``<folder>/<category>.{whole,windows}.safetensors``.

    Attributes:
        load: folder to read from, in place of encoding.
        save: folder to write to.
        common: what every bank is made with: weights, blocks, preprocessing, storage dtype.
        references: by category, SHA-256 of each reference.
    """

    load: Path | None = None
    save: Path | None = None
    common: Mapping[str, Any] = field(default_factory=dict)
    references: Mapping[str, list[str]] = field(default_factory=dict)

    def check(self, detector: Detector) -> None:
        """Refuse a folder to read from that lacks a bank, or holds one of something else.

        Raises:
            BankFileError: see :func:`check_bank`.
        """
        if self.load is not None:
            for category in self.references:
                for path, made_from in self._files(self.load, category, detector).values():
                    check_bank(path, made_from)

    def read(self, category: str, detector: Detector) -> References | None:
        """Read the banks of one category that the detector needs; None if they are not to be read.

        Raises:
            BankFileError: see :func:`load_bank`.
        """
        if self.load is None:
            return None
        files = self._files(self.load, category, detector)
        found = {kind: load_bank(path, made_from) for kind, (path, made_from) in files.items()}
        return References(found.get("whole"), found.get("windows"))

    def write(self, category: str, references: References, detector: Detector) -> None:
        """Write the banks of one category, if they are to be written."""
        if self.save is not None:
            for kind, (path, made_from) in self._files(self.save, category, detector).items():
                save_bank(path, getattr(references, kind), made_from)

    def _files(self, folder: Path, category: str, detector: Detector) -> dict[str, tuple[Path, dict[str, Any]]]:
        """Path and description of each bank that the detector needs, by kind."""
        made_from = {**self.common, "references": self.references[category]}
        files: dict[str, tuple[Path, dict[str, Any]]] = {}
        if detector.sees_whole:
            files["whole"] = folder / f"{category}.whole.safetensors", made_from
        if detector.local is not None:
            files["windows"] = folder / f"{category}.windows.safetensors", {**made_from, **detector.local.geometry}
        return files
