"""What the attention explorer says: layers and heads by name, where the decoder looks, how sharply each head looks."""

from __future__ import annotations

from html import escape

import numpy as np
import torch
from torch import Tensor

from mask3d_core.attention import EncoderAttention, entropy
from mask3d_viz import style
from mask3d_viz.ratio_view import KINDS, SCORED, MapView

PARTS = {"rgb": "RGB encoder", "depth": "Depth encoder", "decoder": "Decoder"}
_TOKENS = {("rgb", "seen"): "RGB, seen", ("rgb", "hidden"): "RGB, hidden", ("depth", "seen"): "depth, seen",
           ("depth", "hidden"): "depth, hidden"}


def layer_words(layer: int, layers: int) -> str:
    """A layer counted from the last, as a reader counts: "last layer", "layer 3 of 4".

    Args:
        layer: -1 is the last.
        layers: how many there are.
    """
    return "last layer" if layer == -1 else f"layer {layers + layer + 1} of {layers}"


def layer_options(layers: int) -> list[tuple[str, int]]:
    """(words, layer) from the first layer to the last, for a slider."""
    return [(layer_words(layer, layers), layer) for layer in range(-layers, 0)]


def head_words(head: str) -> str:
    """What stands for a head in a sentence: "mean of the heads", "head 2"."""
    named = {"mean": "mean of the heads", "max": "largest of the heads", "rollout": "roll-out"}
    return named.get(head, f"head {head}")


def mass_html(mass: dict[str, float], tokens: dict[str, dict[str, float]]) -> str:
    """Where the decoder looks, as a table; a second one where it has tokens of their own for RGB and for depth.

    Args:
        mass: by what is known at the key, see ``ModelAttention.decoder_mass``.
        tokens: by what the token is, see ``ModelAttention.token_mass``; empty for one token a patch.
    """
    rows = [(f"{name} known there", value) for name, value in mass.items()]
    said = _table(rows)
    if tokens:
        parts = [(_TOKENS[name, what], value) for name, sums in tokens.items() for what, value in sums.items()]
        said += "<b>On which tokens</b> (this decoder has RGB and depth tokens apart)" + _table(parts)
    return said


def _table(rows: list[tuple[str, float]]) -> str:
    return "<table>" + "".join(f"<tr><td style='padding-right:12px'>{escape(name)}</td><td style='text-align:right'>{value:.0%}"
                               "</td></tr>" for name, value in rows) + "</table>"


def row_words(values: Tensor, prefix: Tensor, encoder: EncoderAttention) -> str:
    """What does not stand in the picture of one patch's attention.

    Args:
        values: Float (n,) over the grid, NaN where a patch is hidden. prefix: Float (prefix,), to the prefix tokens.
        encoder: whose they are.

    Returns:
        The shares of class token and registers, as far as there are any, and the entropy of this very row, 0..1.
    """
    row = torch.cat([prefix, values[~values.isnan()]])
    row = row / row.sum()  # the largest of all heads do not sum to 1
    classes = encoder.prefix - encoder.registers
    said = [f"class token {100 * float(row[:classes].sum()):.0f} %"] if classes else []
    if encoder.registers:
        said.append(f"registers {100 * float(row[classes:encoder.prefix].sum()):.0f} %")
    return ", ".join([*said, f"entropy {float(entropy(row[None, None, None])[0, 0]):.2f}"])


def entropy_view(part: str, values: Tensor) -> MapView:
    """The entropies of a part's heads as a heat map, first layer at the bottom.

    Args:
        part: "rgb", "depth" or "decoder".
        values: Float (layers, heads), 0 (one key) .. 1 (all keys alike).
    """
    found = values.float().numpy()
    layers, heads = found.shape
    palette = style.colormap("viridis")
    colors = palette[np.rint(np.clip(found, 0, 1) * 255).astype(int)]
    said = [f"{PARTS[part]}, layer {place[0] + 1} of {layers}, head {place[1]}: entropy {value:.2f}"
            for place, value in np.ndenumerate(found)]
    return MapView(
        colors, kinds=np.full(found.shape, KINDS.index(SCORED), np.uint8), hatches=np.zeros(found.shape, np.uint8),
        texts=[f"{value:.2f}" for value in found.ravel()], marks=[""] * found.size, readouts=said,
        rows=[str(k + 1) for k in range(layers)], columns=[str(k) for k in range(heads)], title=PARTS[part], bar_label="",
        palette=np.zeros((0, 3), np.uint8), ticks=[], ends=("", ""), legend="")


__all__ = ["PARTS", "entropy_view", "head_words", "layer_options", "layer_words", "mass_html", "row_words"]
