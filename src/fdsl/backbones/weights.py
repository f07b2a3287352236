"""Weight files: their digest, reading them safely, and loading them so that nothing goes missing unseen."""

import hashlib
import logging
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fdsl.errors import FDSLError

log = logging.getLogger(__name__)


class WeightsNotFoundError(FDSLError, FileNotFoundError):
    """A weight file is nowhere to be had; the message says which to bring and where to name it."""


class WeightsError(FDSLError, ValueError):
    """A weight file that is not what it should be."""


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; hashed again in one process only if the file has changed."""
    stat = path.stat()
    return _sha256_of_file(path.resolve(), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _sha256_of_file(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)  # NumPy knows no bfloat16
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def find_weights(path: str | Path) -> Path:
    """Path of a weight file the user names.

    Raises:
        WeightsNotFoundError: if there is no such file.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise WeightsNotFoundError(f"there is no weight file {file}: correct backbone.model.weights")
    return file


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, floating point tensors as fp32, without running any code that the file may hold.

    Understands ``.safetensors``, ``torch.save`` files (also with the dict under ``state_dict`` or ``model``
    and with the ``module.`` prefix of DataParallel) and TorchScript archives, as OpenAI published CLIP.

    Raises:
        WeightsError: if the file is none of these or is damaged.
    """
    try:
        content = _read(path)
    except Exception as error:  # safetensors, pickle, zip and torch each raise their own kinds
        raise WeightsError(f"{path} cannot be read as a weight file: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = content if isinstance(content, Mapping) else {}
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise WeightsError(f"{path} holds no state dict, that is, no mapping from names to tensors only")
    return {
        name.removeprefix("module."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return load_file(path)
    if _is_torchscript(path):
        return torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_torchscript(path: Path) -> bool:
    # torch.load refuses such archives under weights_only; only they hold a table of constants.
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a module; the tensors themselves, so that it may be on the meta device before.

    Args:
        module: receives the weights.
        state: its state dict, or more than that: what is over is left out and logged as a warning.
        source: where the weights come from, for messages.

    Raises:
        WeightsError: if a key is missing or a shape differs.
    """
    own = module.state_dict()
    missing = own.keys() - state.keys()
    if missing:
        raise WeightsError(
            f"{source} lacks {len(missing)} of the {len(own)} weights of {type(module).__name__}: "
            f"{_some(missing)}. It holds {_some(state)}; are these weights of another model or layout?"
        )
    unlike = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if state[name].shape != tensor.shape
    ]
    if unlike:
        raise WeightsError(f"{source} fits another {type(module).__name__}: {_some(unlike)}")
    if extra := state.keys() - own.keys():
        log.warning("%s: %d weights have no place in the model and are left out: %s", source, len(extra), _some(extra))
    module.load_state_dict({name: state[name] for name in own}, assign=True)


def _some(names: Iterable[str], limit: int = 4) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more
