"""Pictures: known pixels, stored references, odd sizes, holes, wrong inputs."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import make_frame
from hypothesis import given
from hypothesis import strategies as st
from reference_pictures import assert_same

from mask3d_core.errors import Mask3DError
from mask3d_viz import images, style
from mask3d_viz.drawing import color_bar, contact_sheet, scale_ticks, text_block, ticks_between
from mask3d_viz.images import (MARKS, UNKNOWN_RANGE, depth_image, depth_range, error_end, error_image, frame_limits,
                               label_image, label_legend, marks_legend, masked_color_image, masked_depth_image,
                               where_never_measured)
from mask3d_viz.pixels import (cell_edges, grid_to_pixels, hatching, patches_with_depth, resize_nearest, save_png,
                               to_png, with_grid)


def mask(rows, columns, seed=0, ratio=0.6):
    return np.random.default_rng(seed).random((rows, columns)) < ratio


def luminance(color):
    share = np.array(color) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(a, b):
    low, high = sorted((luminance(style.rgb(a)), luminance(style.rgb(b))))
    return (high + 0.05) / (low + 0.05)


def test_importing_loads_no_plotting():
    code = ("import sys, mask3d_viz; assert 'torch' not in sys.modules;"
            "import mask3d_viz.panels, mask3d_viz.clouds, mask3d_viz.curves, mask3d_viz.html_page;"
            "print([m for m in ('matplotlib', 'PIL', 'IPython', 'open3d') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", style.THEMES)
def test_text_can_be_read_in_both_themes(name):
    colors = style.theme(name)
    for role in ("ink", "muted", "accent", "best", "warn"):
        for ground in ("paper", "card"):
            assert contrast(colors[role], colors[ground]) >= 4.5, (role, ground)
    assert contrast(colors["best"], colors["best-card"]) >= 4.5
    for color in style.SERIES[name]:
        assert contrast(color, colors["paper"]) >= 4.5, color


def test_classes_can_be_told_apart():
    colors = style.label_colors(13).astype(int)
    apart = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(13, dtype=int)
    assert apart.min() > 40
    assert len(np.unique(style.label_colors(40), axis=0)) == 40


def test_jet_is_refused_everywhere():
    for call in (lambda: style.colormap("jet"), lambda: depth_image(np.ones((2, 2), np.float32), colormap="jet")):
        with pytest.raises(Mask3DError, match="jet"):
            call()


def test_depth_colors_are_the_map_at_known_metres():
    depth = np.array([[1.0, 2.0, 3.0, 9.0]], np.float32)
    table = style.colormap("viridis")
    image = depth_image(depth, None, (1.0, 3.0), "viridis")
    assert image[0].tolist() == [table[i].tolist() for i in (0, 128, 255, 255)]
    assert depth_image(torch.from_numpy(depth), None, (1.0, 3.0), "viridis").tolist() == image.tolist()


def test_depth_image_matches_reference():
    frame = make_frame(36, 54)
    assert_same(depth_image(frame.depth, frame.is_valid, (1.0, 1.7)), "depth")


def test_masked_pictures_match_references():
    frame = make_frame(36, 54)
    is_masked = mask(3, 4)
    assert_same(masked_color_image(frame.color, is_masked), "masked_color")
    assert_same(masked_depth_image(frame.depth, frame.is_valid, is_masked, (1.0, 1.7)), "masked_depth")


def test_error_matches_reference():
    frame = make_frame(36, 54)
    ramp = np.linspace(-0.4, 0.4, 54, dtype=np.float32)[None]
    assert_same(error_image(frame.depth + ramp, frame.depth, frame.is_valid, 0.3), "error")


def test_labels_match_reference():
    labels = (np.arange(20, dtype=np.uint8)[:, None] // 5 * 4 + np.arange(24, dtype=np.uint8)[None] // 6)
    labels[:4, :6] = 255
    assert_same(label_image(np.where((labels < 13) | (labels == 255), labels, 12)), "labels")


def test_true_in_the_mask_means_hidden():
    color = make_frame(32, 48).color
    is_masked = mask(2, 3)
    image = masked_color_image(color, is_masked)
    hidden = grid_to_pixels(is_masked, (32, 48))
    assert np.array_equal(image[~hidden], color[~hidden])
    greys = image[hidden].astype(int)
    assert len(greys) and np.ptp(greys, axis=1).max() <= 12  # grey: the three channels nearly equal
    assert greys.mean() < 160  # and darker than a hole


@pytest.mark.parametrize("hidden", [True, False])
def test_a_patch_without_a_measurement_is_a_hole_whatever_the_mask_says(hidden):
    depth, is_valid = np.ones((32, 32), np.float32), np.ones((32, 32), bool)
    is_valid[:16, :16] = False
    is_masked = np.zeros((2, 2), bool)
    is_masked[0, 0] = hidden
    image = masked_depth_image(depth, is_valid, is_masked, (0.5, 2.0))
    assert np.array_equal(image[:16, :16], hatching((32, 32), style.HOLE_COLORS)[:16, :16])
    assert patches_with_depth(is_valid, (2, 2)).tolist() == [[False, True], [True, True]]


def test_holes_keep_garbage_out():
    depth = np.full((8, 8), 2.0, np.float32)
    is_valid = np.ones((8, 8), bool)
    is_valid[2, 3] = is_valid[4, 4] = False
    clean = depth_image(depth, is_valid)
    depth[2, 3], depth[4, 4] = np.nan, 65.535
    assert np.array_equal(depth_image(depth, is_valid), clean)
    assert depth_range(depth, is_valid) == pytest.approx((1.95, 2.05))
    assert np.array_equal(error_image(np.full((8, 8), 2.0), depth, is_valid, 0.1),
                          error_image(np.full((8, 8), 2.0), np.full((8, 8), 2.0), is_valid, 0.1))


def test_range_ignores_a_few_outliers_and_hears_predictions():
    depth = np.full((100, 100), 2.0, np.float32)
    depth[:50] = 3.0
    depth[0, :20] = 65.5
    assert depth_range(depth) == (2.0, 3.0)
    near, far = depth_range(depth, None, np.full((100, 100), 5.0, np.float32))
    assert (near, far) == (2.0, 5.0)


def test_error_sign_symmetry_and_limit():
    truth = np.full((4, 6), 2.0, np.float32)
    is_valid = np.ones((4, 6), bool)
    far, right, near = (error_image(truth + d, truth, is_valid, 0.5)[0, 0].astype(int) for d in (0.5, 0.0, -0.5))
    assert far[0] > far[2] and near[2] > near[0]  # red too far, blue too near
    assert right.min() > 240
    assert error_end((0.5, 0.7)) == 0.05 and error_end((0.5, 4.0)) == 0.35 and error_end((1.0, 31.0)) == 3.0
    truth[:, 3:] = 5.0  # one rule for every picture: the range of the frame decides, not the prediction
    for error in (0.01, 0.2, 3.0):
        assert np.array_equal(error_image(truth + error, truth, is_valid),
                              error_image(truth + error, truth, is_valid, error_end(frame_limits(truth, is_valid))))


def test_a_prediction_over_a_hole_has_colours_that_no_depth_has():
    is_valid = np.ones((40, 64), bool)
    is_valid[:, 32:] = False
    depth = np.tile(np.linspace(1, 3, 40, dtype=np.float32)[:, None], (1, 64))
    for name in style.DEPTH_COLORMAPS:
        image = depth_image(depth, None, (1.0, 3.0), name)
        drawn = where_never_measured(image, is_valid)
        assert np.array_equal(drawn[:, :32], image[:, :32])
        over = drawn[:, 32:].reshape(-1, 3).astype(int)
        order = over.sum(1).argsort()
        light, dark = (np.asarray(over[pick]).mean(0) for pick in (order[-800:], order[:200]))
        assert np.abs(light - dark).sum() > 150, "stripes: the colour is not all that tells"
        assert np.abs(light - style.colormap(name).astype(int)).sum(1).min() > 40, name
        assert drawn.marks == ("guessed",) and image.marks == ()


def test_a_picture_knows_what_its_hatchings_mean_and_the_legend_says_it():
    frame = make_frame(48, 64)
    everywhere = np.ones_like(frame.is_valid)
    assert depth_image(frame.depth, frame.is_valid).marks == error_image(frame.depth, frame.depth, frame.is_valid).marks == ("hole",)
    assert depth_image(frame.depth).marks == where_never_measured(frame.color, everywhere).marks == ()
    assert masked_color_image(frame.color, mask(3, 4)).marks == ("hidden",)
    assert masked_depth_image(frame.depth, frame.is_valid, mask(3, 4)).marks == ("hidden", "hole")
    assert not hasattr(np.concatenate([np.asarray(depth_image(frame.depth, frame.is_valid))]), "marks")
    one, three = (marks_legend(marks, 900) for marks in (("hole",), tuple(MARKS)))
    assert one.shape == three.shape and (three != one).any() and marks_legend(tuple(MARKS), 300).shape[0] > three.shape[0]
    assert frame_limits(frame.depth, np.zeros_like(frame.is_valid)) == UNKNOWN_RANGE


@given(st.floats(-20, 20), st.floats(0.01, 60), st.integers(2, 6))
def test_a_colour_bar_always_has_two_numbers_or_more(low, width, count):
    ticks, digits = scale_ticks(low, low + width, count)
    assert 2 <= len(ticks) <= count + 1 and low - 1e-6 <= ticks[0] < ticks[-1] <= low + width + 1e-6
    said = [round(tick, digits) for tick in ticks]
    assert len(set(said)) == len(said), "each is told from the next"


def test_a_frame_that_is_all_hole():
    depth, is_valid = np.zeros((20, 30), np.float32), np.zeros((20, 30), bool)
    hole = hatching((20, 30), style.HOLE_COLORS)
    assert depth_range(depth, is_valid) == (0.0, 1.0)
    for image in (depth_image(depth, is_valid), error_image(depth + 1, depth, is_valid),
                  masked_depth_image(depth, is_valid, mask(2, 3))):
        assert np.array_equal(image, hole)


@pytest.mark.parametrize("size, grid", [((540, 360), (34, 23)), ((1, 1), (1, 1)), ((7, 1), (3, 1)), ((17, 33), (2, 3))])
def test_odd_sizes(size, grid):
    generator = np.random.default_rng(0)
    color = generator.random((*size, 3))
    depth = generator.random(size).astype(np.float32) + 1
    is_masked = mask(*grid)
    for image in (masked_color_image(color, is_masked), masked_depth_image(depth, depth > 1.2, is_masked),
                  with_grid(images.as_picture(color), grid), error_image(depth, depth, depth > 1.2)):
        assert image.shape == (*size, 3) and image.dtype == np.uint8


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_cells_cover_every_pixel_once(pair):
    edges = cell_edges(*pair)
    assert edges[0] == 0 and edges[-1] == pair[0] and len(edges) == pair[1] + 1
    widths = np.diff(edges)
    assert widths.min() >= 1 and widths.max() - widths.min() <= 2


def test_resize_nearest_keeps_values_and_places():
    picture = np.arange(6).reshape(2, 3)
    assert np.array_equal(resize_nearest(picture, (4, 6)), np.kron(picture, np.ones((2, 2), int)))
    assert np.array_equal(resize_nearest(np.arange(9)[None], (1, 3)), [[1, 4, 7]])
    assert np.array_equal(resize_nearest(picture, (2, 3)), picture)


@pytest.mark.parametrize("call", [
    lambda f: depth_image(f.depth[None]), lambda f: depth_image(f.depth, f.is_valid[:-1]),
    lambda f: depth_image(f.depth, f.is_valid.astype(np.uint8)), lambda f: depth_image(f.depth, None, (2.0, 1.0)),
    lambda f: depth_image(np.where(f.is_valid, np.nan, f.depth), f.is_valid),
    lambda f: masked_color_image(f.color.transpose(2, 0, 1), mask(3, 4)),
    lambda f: masked_color_image(f.color.astype(np.float32), mask(3, 4)),
    lambda f: masked_color_image(f.color, mask(3, 4).ravel()),
    lambda f: masked_color_image(f.color, mask(3, 4).astype(int)), lambda f: masked_color_image(f.color, mask(99, 99)),
    lambda f: error_image(f.depth[:5], f.depth, f.is_valid), lambda f: error_image(f.depth, f.depth, f.is_valid, 0.0),
    lambda f: label_image(f.depth), lambda f: label_image(np.full((4, 4), 99), colors=style.label_colors(3)),
    lambda f: label_image(np.zeros((4, 4), int), f.color), lambda f: color_bar((1.0, 1.0), "viridis", 300),
    lambda f: contact_sheet([f.color], [], 1), lambda f: contact_sheet([], [], 1), lambda f: style.theme("sepia"),
])
def test_wrong_input_gives_one_clear_line(call):
    with pytest.raises(Mask3DError, match=r"expected .+; got .+\. \w") as caught:
        call(make_frame(36, 54))
    assert "\n" not in str(caught.value)


def test_ticks_are_round_and_inside():
    assert ticks_between(0.61, 4.2) == [1.0, 2.0, 3.0, 4.0]
    assert ticks_between(-0.3, 0.3, 4) == pytest.approx([-0.2, 0.0, 0.2])
    for low, high in ((0.001, 0.0011), (-5, 500), (2, 2.5)):
        ticks = ticks_between(low, high)
        assert 2 <= len(ticks) <= 11 and min(ticks) >= low - 1e-9 and max(ticks) <= high + 1e-9


def test_color_bar_shows_its_map_from_end_to_end():
    bar = color_bar((0.5, 4.0), "cividis", 400, label="Depth in metres")
    table = style.colormap("cividis")
    assert bar.shape[1] == 400
    row = next(line for line in bar if (line == table[0]).all(1).any() and (line == table[-1]).all(1).any())
    inside = np.flatnonzero((row == table[0]).all(1))[0]
    assert np.array_equal(row[inside + np.arange(0, 300, 60)],
                          style.apply_colormap(np.linspace(0, 1, 400 - 2 * inside), 0, 1, "cividis")[::60][:5])


def test_text_wraps_to_its_width():
    one, many = text_block("word " * 3, 400, 16), text_block("word " * 60, 400, 16)
    assert one.shape[1] == many.shape[1] == 400 and many.shape[0] > 4 * one.shape[0]
    assert text_block("", 100, 16).shape == (0, 100, 3)
    assert text_block("tiny", 100, 2).shape[0] >= style.SMALLEST_FONT
    assert text_block("word", 100, 16, theme="dark").mean() < 60


def test_contact_sheet_holds_every_picture():
    pictures = [np.full((20, 30, 3), 40 * i, np.uint8) for i in range(5)]
    sheet = contact_sheet(pictures, [f"number {i}" for i in range(5)], 2, gap=10)
    assert sheet.shape[1] == 2 * 40 + 10
    for i in range(5):
        assert (sheet == 40 * i).all(axis=2).sum() >= 600


def test_legend_wraps_and_shows_each_color():
    names = list(style.CLASS_COLORS)
    narrow, wide = label_legend(names, 200), label_legend(names, 1600)
    assert narrow.shape[0] > 3 * wide.shape[0]
    for color in style.CLASS_COLORS.values():
        assert (wide == color).all(axis=2).sum() >= 200


def test_png_is_lossless_and_repeats(tmp_path):
    from PIL import Image

    color = make_frame().color
    path = save_png(color, tmp_path / "deep" / "picture.png")
    assert np.array_equal(np.asarray(Image.open(path)), color)
    assert path.read_bytes() == to_png(color) == to_png(torch.from_numpy(color))
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
