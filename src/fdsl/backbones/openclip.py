"""CLIP vision transformers of ``open_clip``: raw block outputs, and the projected CLS as image feature."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import _build_vision_tower
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from fdsl.backbones.base import Backbone, BackboneSpec, Weights
from fdsl.backbones.checks import check_blocks, check_options
from fdsl.backbones.clip_names import check_activation, model_config
from fdsl.backbones.hub import from_hub, from_url
from fdsl.backbones.position import PositionEmbedding
from fdsl.backbones.weights import find_weights, load_strict, read_state_dict, sha256_of_file

log = logging.getLogger(__name__)

HUB_FILENAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class OpenCLIPBackbone(Backbone):
    """The visual tower of a CLIP, (B, 3, S, S) -> tokens (L, B, N, C) and projected CLS (B, D).

    Tokens are the raw output of the blocks, without the final norm and the projection. Position embeddings
    are resized from the weights' own grid for every S.

    Args:
        name: an ``open_clip`` architecture with a plain ViT; the ending ``-quickgelu`` names the activation.
        pretrained: ``open_clip``'s tag of the weights; with ``weights`` it may be None.
        weights: path of a weight file (``.safetensors``, ``torch.save`` or OpenAI's TorchScript archive, the
            whole CLIP or its visual tower); None takes the tag's from the cache or the hub.
        blocks: the tapped blocks, 1-based.
        cache_dir: where downloads are kept, default the libraries' own.

    Raises:
        ConfigError: for a name, tag and activation that do not belong together.
        WeightsNotFoundError: if there are no weights to be had.
        WeightsError: if the file does not fit.

    Source: paper, section on the encoder; Radford et al. 2021, https://arxiv.org/abs/2103.00020.
    """

    def __init__(
        self,
        name: str = "ViT-L-14-336-quickgelu",
        pretrained: str | None = "openai",
        weights: str | None = None,
        blocks: Sequence[int] = (6, 12, 18, 24),
        cache_dir: str | None = None,
    ) -> None:
        spec = self.describe(name=name, pretrained=pretrained, weights=weights)
        check_blocks(blocks, spec.depth)  # before a download, not after
        if weights is None:
            path, source = _download(name, str(pretrained), cache_dir), f"hub {pretrained} {name}"
        else:
            path = find_weights(weights)
            source = f"file {path.name}"
        super().__init__(spec, blocks, Weights(source, sha256_of_file(path)))
        self.visual = _visual_tower(name, _visual_weights(path), str(path))
        self.position = PositionEmbedding(self.visual.positional_embedding)
        del self.visual.positional_embedding  # one home only
        self._freeze()

    @classmethod
    def describe(
        cls,
        *,
        name: str = "ViT-L-14-336-quickgelu",
        pretrained: str | None = "openai",
        weights: str | None = None,
        **options: Any,
    ) -> BackboneSpec:
        """See ``Backbone.describe``; also checks that name, tag and activation belong together."""
        check_options(cls, options)
        config = model_config(name)
        check_activation(name, pretrained, from_file=weights is not None)
        vision = config["vision_cfg"]
        return BackboneSpec(
            depth=vision["layers"],
            patch_size=vision["patch_size"],
            width=vision["width"],
            feature_width=config["embed_dim"],
        )

    def _encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        visual = self.visual
        x = visual.conv1(images)  # B C G G
        grid = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)  # B N C
        cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat([cls, x], dim=1) + self.position(grid).to(x.dtype))  # B 1+N C
        with _fused_attention():
            x, taps = visual.transformer.forward_intermediates(x, indices=[block - 1 for block in self.blocks])
        # open_clip's own pooling: where its final norm stands differs from model to model.
        pooled = visual._pool(x)[0] @ visual.proj  # B D
        return [tap[:, 1:] for tap in taps], pooled


def _download(name: str, pretrained: str, cache_dir: str | None) -> Path:
    tag = open_clip.get_pretrained_cfg(name, pretrained)
    model = f"{name} ({pretrained})"
    if tag["hf_hub"]:
        repository, _, filename = tag["hf_hub"].rpartition("/")
        return from_hub(model, repository, [filename] if filename else HUB_FILENAMES, cache_dir)
    return from_url(model, tag["url"], cache_dir)


def _visual_weights(path: Path) -> dict[str, Tensor]:
    state = read_state_dict(path)
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    if visual and len(visual) < len(state):
        log.info("%s: %d weights outside the visual tower are left out", path, len(state) - len(visual))
    return visual or state


def _visual_tower(name: str, state: dict[str, Tensor], source: str) -> Any:
    config = model_config(name)
    quick_gelu = bool(config.get("quick_gelu", False))
    # The tower alone, without the text tower beside it; on the meta device it takes neither memory nor time,
    # and then gets the file's own tensors.
    with torch.device("meta"):
        visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], quick_gelu=quick_gelu)
    for block in visual.transformer.resblocks:
        if quick_gelu != any(isinstance(layer, QuickGELU) for layer in block.modules()):
            raise RuntimeError(f"open_clip built {name} with another activation than its name stands for")
    if "positional_embedding" in state:
        # The file's grid counts, not the architecture's: PositionEmbedding resizes from it.
        visual.positional_embedding = nn.Parameter(torch.empty_like(state["positional_embedding"], device="meta"))
    load_strict(visual, state, source)
    return visual


@contextmanager
def _fused_attention() -> Iterator[None]:
    # nn.MultiheadAttention's own "fast path" keeps the whole N x N attention matrix on the CPU and is a third
    # slower at 518 px than scaled_dot_product_attention, which is what runs without it.
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
