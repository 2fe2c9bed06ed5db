"""Attention as plain tensors: of any timm VisionTransformer, and of a Mask3D by encoder and decoder.

timm's fused attention leaves nothing to look at after the softmax, so the weights are computed a second time from the
queries and keys of the same forward pass. Attention says where values were mixed from; it is not attribution
(:mod:`mask3d_core.evaluation.influence` measures that by taking patches away).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from timm.layers import Attention
from torch import Tensor, nn

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.masking import Masks, keep_ids
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.shapes import Bool, Float, Int

KNOWN = ("RGB", "depth", "both", "nothing")
"""What is known at a key of the decoder: which modalities' patches are visible there."""


def _weights(module: Attention, x: Tensor, attn_mask: Tensor | None) -> Tensor:
    b, n, _ = x.shape
    qkv = module.qkv(x).reshape(b, n, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k = module.q_norm(qkv[0]), module.k_norm(qkv[1])
    scores = (q * module.scale) @ k.transpose(-2, -1)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.float().softmax(dim=-1)


@contextmanager
def recorded(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention of every forward pass inside the ``with``, layer by layer.

    Args:
        module: holds timm ``Attention`` layers: a VisionTransformer, a block, a decoder.

    Yields:
        A list that fills with Float (b, heads, queries, keys), each row summing to 1.

    Raises:
        ConfigError: there is no such layer in it.
    """
    layers = [m for m in module.modules() if isinstance(m, Attention)]
    if not layers:
        raise ConfigError(f"a {type(module).__name__} has no timm Attention layer whose weights could be shown; "
                          "use a plain VisionTransformer")
    found: list[Tensor] = []

    def look(layer: Attention, inputs: tuple, named: dict) -> None:
        mask = named.get("attn_mask", inputs[1] if len(inputs) > 1 else None)
        with torch.no_grad():
            found.append(_weights(layer, inputs[0], mask))

    handles = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def rollout(layers: Sequence[Float[Tensor, "b h n n"]]) -> Float[Tensor, "b n n"]:
    """Attention carried through all layers, with half of each layer passed on by the residual path.

    Abnar and Zuidema, "Quantifying attention flow in transformers", ACL 2020.
    """
    total = None
    for weights in layers:
        mean = weights.mean(dim=1)
        mean = 0.5 * mean + 0.5 * torch.eye(mean.shape[-1], device=mean.device)
        total = mean if total is None else mean @ total
    return total


def entropy(weights: Float[Tensor, "b h q k"]) -> Float[Tensor, "b h"]:
    """Mean entropy of each head's rows, in 0 (one key) .. 1 (all keys alike)."""
    count = (weights > 0).sum(dim=-1).clamp(min=2).float()
    rows = -(weights * weights.clamp(min=1e-12).log()).sum(dim=-1) / count.log()
    return rows.mean(dim=-1)


def combine(layers: Sequence[Float[Tensor, "b h q k"]], layer: int, head: int | str) -> Float[Tensor, "b q k"]:
    """One picture's worth of attention.

    Args:
        layers: as :func:`recorded` gives them.
        layer: which; negative from the last. Not used by "rollout".
        head: a number, "mean", "max" or "rollout".

    Raises:
        ConfigError: no such layer or head.
    """
    if head == "rollout":
        return rollout(layers)
    if not -len(layers) <= layer < len(layers):
        raise ConfigError(f"layer must be {-len(layers)}..{len(layers) - 1}; got {layer}")
    weights = layers[layer]
    if head == "mean":
        return weights.mean(dim=1)
    if head == "max":
        return weights.amax(dim=1)
    if not isinstance(head, int) or not 0 <= head < weights.shape[1]:
        raise ConfigError(f"head must be 0..{weights.shape[1] - 1}, mean, max or rollout; got {head!r}")
    return weights[:, head]


@dataclass(frozen=True)
class EncoderAttention:
    """The attention of one encoder over one frame's visible patches.

    Args:
        layers: per layer Float (heads, t, t), t = prefix + visible patches.
        prefix: how many class and register tokens come first.
        ids: Long (visible,), the patch of each further token.
        count: number of patches of the grid.
        registers: how many of the prefix tokens are registers: the last ones.
    """

    layers: tuple[Tensor, ...]
    prefix: int
    ids: Int[Tensor, "k"]
    count: int
    registers: int = 0

    def of(self, patch: int, layer: int = -1, head: int | str = "mean") -> tuple[Tensor, Tensor]:
        """Where a visible patch looks.

        Returns:
            Float (n,) over the grid, NaN where a patch is hidden; and Float (prefix,), what goes to the prefix tokens.

        Raises:
            ConfigError: the patch is hidden: it has no token here.
        """
        place = (self.ids == patch).nonzero()
        if not len(place):
            raise ConfigError(f"patch {patch} (row by row from 0) is hidden from this encoder, so it asks nothing; choose a "
                              "visible one")
        row = combine([w[None] for w in self.layers], layer, head)[0, self.prefix + int(place[0, 0])]
        grid = torch.full((self.count,), float("nan"))
        grid[self.ids] = row[self.prefix:].float().cpu()
        return grid, row[:self.prefix].float().cpu()

    def entropies(self) -> Float[Tensor, "l h"]:
        """Entropy of each layer's heads, 0..1."""
        return _entropies(self.layers)


@dataclass(frozen=True)
class ModelAttention:
    """The attention of one Mask3D forward pass over one frame.

    Args:
        rgb, depth: the encoders', or None where nothing of that input was visible.
        decoder: per layer Float (heads, t, t).
        tokens: what each decoder token is: (modality or "grid", patch).
        known: per patch, index into ``KNOWN``.
        target: where the depth target's tokens start in the decoder's sequence.
    """

    rgb: EncoderAttention | None
    depth: EncoderAttention | None
    decoder: tuple[Tensor, ...]
    tokens: tuple[tuple[str, int], ...]
    known: Int[Tensor, "n"]
    target: int

    def decoder_of(self, patch: int, layer: int = -1, head: int | str = "mean") -> dict[str, Float[Tensor, "n"]]:
        """Where the decoder looks to predict a patch: modality (or "grid") to Float (n,), NaN where it has no token."""
        row = combine([w[None] for w in self.decoder], layer, head)[0, self.target + patch].float().cpu()
        found: dict[str, Tensor] = {}
        for (name, place), weight in zip(self.tokens, row, strict=True):
            found.setdefault(name, torch.full((len(self.known),), float("nan")))[place] = weight
        return found

    def decoder_mass(self, patch: int, layer: int = -1, head: int | str = "mean") -> dict[str, float]:
        """The decoder's attention of one patch, summed by what is known at the key: sums to 1 (but for head "max")."""
        total = dict.fromkeys(KNOWN, 0.0)
        for weights in self.decoder_of(patch, layer, head).values():
            for number, name in enumerate(KNOWN):
                total[name] += float(weights[self.known == number].nansum())
        return total

    def token_mass(self, patch: int, layer: int = -1, head: int | str = "mean") -> dict[str, dict[str, float]]:
        """The decoder's attention of one patch, summed by what the tokens are; together 1 (but for head "max").

        Returns:
            "rgb" and "depth", as far as the decoder has such tokens, to the sums over the patches that are "seen" there
            and over those that are "hidden" (a target has a token for each of them, another input has none). Empty where
            the decoder has one token a patch for both (every fusion but ``concat_tokens``).

        Raises:
            ConfigError: no such layer or head.
        """
        found: dict[str, dict[str, float]] = {}
        for name, weights in self.decoder_of(patch, layer, head).items():
            if name == "grid":
                continue
            is_seen = self.is_seen(name)
            sums = {"seen": is_seen, "hidden": ~is_seen}
            found[name] = {what: float(weights[where].nansum()) for what, where in sums.items()
                           if (where & ~weights.isnan()).any()}
        return found

    def is_seen(self, modality: str) -> Bool[Tensor, "n"]:
        """Which patches of a modality, "rgb" or "depth", the model sees."""
        alone = KNOWN.index("RGB" if modality == "rgb" else "depth")
        return (self.known == alone) | (self.known == KNOWN.index("both"))

    def entropies(self) -> dict[str, Float[Tensor, "l h"]]:
        """Entropy of each layer's heads, 0..1, by part: "rgb", "depth" (where something of it is visible), "decoder"."""
        encoders = {name: part.entropies() for name, part in (("rgb", self.rgb), ("depth", self.depth)) if part is not None}
        return encoders | {"decoder": _entropies(self.decoder)}


def _entropies(layers: Sequence[Float[Tensor, "h q k"]]) -> Float[Tensor, "l h"]:
    return torch.stack([entropy(w[None])[0] for w in layers])


def attention_sizes(model: Mask3D) -> dict[str, tuple[int, int]]:
    """(layers, heads) of each part: "rgb" and "depth", as far as the model has them, and "decoder"."""
    parts = {name: getattr(model, f"{name}_encoder").blocks for name in model.config.inputs} | {"decoder": model.decoder}
    return {name: (len(blocks), blocks[0].attn.num_heads) for name, blocks in parts.items()}


@torch.inference_mode()
def record_attention(model: Mask3D, batch: Batch, masks: Masks) -> ModelAttention:
    """Run one frame and keep all attention.

    Args:
        model: in evaluation mode.
        batch: one frame. masks: of it.

    Raises:
        ConfigError: more than one frame.
    """
    if len(batch) != 1:
        raise ConfigError(f"attention is recorded for one frame at a time; got {len(batch)}")
    parts, found = {}, {}
    for name in ("rgb", "depth"):
        if name in model.config.inputs and getattr(masks, f"{name}_count"):
            parts[name] = getattr(model, f"{name}_encoder")
    with recorded(model) as everything:
        model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, masks)
    start, count = 0, masks.rgb.shape[1]
    for name, encoder in parts.items():
        layers = tuple(w[0] for w in everything[start:start + len(encoder.blocks)])
        start += len(encoder.blocks)
        ids, is_padding = keep_ids(getattr(masks, name), getattr(masks, f"{name}_count"))
        ids, prefix = ids[0][~is_padding[0]], encoder.num_prefix_tokens
        layers = tuple(w[:, :prefix + len(ids), :prefix + len(ids)] for w in layers)
        found[name] = EncoderAttention(layers, prefix, ids.cpu(), count, encoder.num_reg_tokens)
    tokens, target = _decoder_tokens(model, masks, count)
    return ModelAttention(found.get("rgb"), found.get("depth"), tuple(w[0] for w in everything[start:]), tokens,
                          _known(model, masks), target)


def _known(model: Mask3D, masks: Masks) -> Tensor:
    has_rgb = ~masks.rgb[0] if "rgb" in model.config.inputs else torch.zeros_like(masks.rgb[0])
    has_depth = ~masks.depth[0] if "depth" in model.config.inputs else torch.zeros_like(masks.depth[0])
    known = torch.full_like(has_rgb, KNOWN.index("nothing"), dtype=torch.int64)
    known[has_rgb], known[has_depth] = KNOWN.index("RGB"), KNOWN.index("depth")
    known[has_rgb & has_depth] = KNOWN.index("both")
    return known.cpu()


def _decoder_tokens(model: Mask3D, masks: Masks, count: int) -> tuple[tuple[tuple[str, int], ...], int]:
    """What the decoder's tokens are, and where those of the depth target start."""
    config = model.config
    if config.fusion != "concat_tokens":
        return tuple(("grid", patch) for patch in range(count)), 0
    tokens: list[tuple[str, int]] = []
    target = 0
    shown = {name for name in config.inputs if getattr(masks, f"{name}_count")}
    for name in sorted(shown | set(config.targets)):
        if name in config.targets:
            target = len(tokens) if name == "depth" or "depth" not in config.targets else target
            tokens += [(name, patch) for patch in range(count)]
        else:
            ids, _ = keep_ids(getattr(masks, name), getattr(masks, f"{name}_count"))
            tokens += [(name, patch) for patch in ids[0].tolist()]
    return tuple(tokens), target
