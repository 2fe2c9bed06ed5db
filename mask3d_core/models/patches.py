"""Pictures to patches and back, and positions on any grid. Pure functions of a few lines."""

from __future__ import annotations

import torch
from torch import Tensor

from mask3d_core.shapes import Float, Int


def patchify(picture: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b n d"]:
    """Cut a picture into patches, row by row of the grid.

    Returns:
        (b, rows * columns, c * patch * patch); within a patch: channel, then row, then column, the order of a
        convolution's weight, so that a patch embedding is one matrix product.

    Raises:
        ValueError: the size is no multiple of the patch.
    """
    b, c, height, width = picture.shape
    if height % patch or width % patch:
        raise ValueError(f"expected a size that is a multiple of {patch}; got {height}x{width}. Crop or resize first.")
    grid = picture.reshape(b, c, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch * patch)


def unpatchify(patches: Float[Tensor, "b n d"], grid: tuple[int, int], patch: int) -> Float[Tensor, "b c h w"]:
    """The inverse of :func:`patchify` for a grid of (rows, columns)."""
    b, count, width = patches.shape
    channels = width // (patch * patch)
    if count != grid[0] * grid[1] or channels * patch * patch != width:
        raise ValueError(f"expected {grid[0] * grid[1]} patches of c*{patch * patch} values; got {count} of {width}")
    picture = patches.reshape(b, grid[0], grid[1], channels, patch, patch)
    return picture.permute(0, 3, 1, 4, 2, 5).reshape(b, channels, grid[0] * patch, grid[1] * patch)


def gather_visible(tokens: Float[Tensor, "b n d"], ids_keep: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """The tokens at ``ids_keep``."""
    return tokens.gather(1, ids_keep[..., None].expand(-1, -1, tokens.shape[-1]))


def scatter_to_grid(tokens: Float[Tensor, "b k d"], ids_keep: Int[Tensor, "b k"], count: int,
                    is_padding: Tensor | None = None) -> Float[Tensor, "b n d"]:
    """Put tokens back at their places of a grid of ``count`` patches; zeros elsewhere.

    Args:
        is_padding: Bool (b, k), entries that are dropped.
    """
    if is_padding is not None:
        tokens = tokens.masked_fill(is_padding[..., None], 0.0)
    grid = tokens.new_zeros(tokens.shape[0], count, tokens.shape[-1])
    return grid.scatter_add(1, ids_keep[..., None].expand_as(tokens), tokens)


def sincos_positions(grid: tuple[int, int], width: int) -> Float[Tensor, "n d"]:
    """Fixed sine-cosine codes of the patch rows and columns (Vaswani et al. 2017, per axis as in ViT/MAE).

    Args:
        grid: (rows, columns), any shape.
        width: of the code; a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"expected a width that is a multiple of 4; got {width}")
    quarter = width // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows = torch.arange(grid[0], dtype=torch.float64)[:, None] * frequency
    columns = torch.arange(grid[1], dtype=torch.float64)[:, None] * frequency
    row_code = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(-1, grid[1], -1)
    column_code = torch.cat([columns.sin(), columns.cos()], dim=1)[None].expand(grid[0], -1, -1)
    return torch.cat([row_code, column_code], dim=2).reshape(grid[0] * grid[1], width).float()
