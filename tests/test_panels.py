"""The reconstruction panel: its tiles are the pictures they claim to be, at any size, with and without depth."""

import numpy as np
import pytest
from conftest import make_frame

from mask3d_core.errors import Mask3DError
from mask3d_viz import images, panels, style
from mask3d_viz.images import masked_color_image
from mask3d_viz.pixels import hatching, resize_nearest


def mask(rows, columns, seed=0, ratio=0.6):
    return np.random.default_rng(seed).random((rows, columns)) < ratio


def draw_panel(frame, prediction=None, **options):
    prediction = frame.depth + 0.05 if prediction is None else prediction
    options = {"is_pasted": False, **options}
    return panels.reconstruction_panel(frame.color, frame.depth, frame.is_valid, prediction, mask(3, 4), mask(3, 4, 1),
                                       **options)


def tiles_of(panel, width=1600, columns=5, aspect=48 / 64):
    """The five pictures cut out of a row panel, found by the first row that is not paper."""
    gap = round(width * 0.009)
    wide = (width - 6 * gap) // 5
    tall = round(wide * aspect)
    paper = np.array(style.rgb(style.theme("light")["paper"]))
    edge = (panel[:, gap:gap + wide] != paper).any(axis=2).all(axis=1)
    top = int(np.flatnonzero(edge)[0])
    return [panel[top:top + tall, gap + i * (wide + gap):gap + i * (wide + gap) + wide] for i in range(columns)]


def test_panel_shows_equal_depth_in_equal_colors():
    frame = make_frame(48, 64, holes=0.0)
    _, _, prediction, truth, error = tiles_of(draw_panel(frame, frame.depth))
    assert np.array_equal(prediction, truth)
    assert error.min() > 240  # no error: all white


def test_panel_tiles_are_what_they_say():
    frame = make_frame(48, 64)
    tiles = tiles_of(draw_panel(frame))
    shown = resize_nearest(frame.is_valid, tiles[0].shape[:2])
    holes = hatching(tiles[0].shape[:2], style.HOLE_COLORS)
    for tile in (tiles[3], tiles[4]):
        assert np.array_equal(tile[~shown], holes[~shown])
    assert np.array_equal(tiles[0], masked_color_image(
        panels.resize_smooth(frame.color, tiles[0].shape[:2]), mask(3, 4)))


def test_every_panel_has_the_frames_scale_of_errors_and_marks_what_was_never_measured():
    frame = make_frame(48, 64)
    limits = images.frame_limits(frame.depth, frame.is_valid)
    options = {"limits": limits, "error_end": images.error_end(limits)}
    for error in (0.01, 0.9):
        assert np.array_equal(draw_panel(frame, frame.depth + error), draw_panel(frame, frame.depth + error, **options))
    prediction = tiles_of(draw_panel(frame))[2]
    shown = resize_nearest(frame.is_valid, prediction.shape[:2])
    plain = images.depth_image(resize_nearest(frame.depth + 0.05, prediction.shape[:2]), None, limits)
    assert np.array_equal(prediction, images.where_never_measured(plain, shown)) and not np.array_equal(prediction, plain)
    empty = make_frame(48, 64, holes=1.0)
    depth = np.full((48, 64), 2.0, np.float32)
    assert np.array_equal(draw_panel(empty, depth), draw_panel(empty, depth, limits=images.UNKNOWN_RANGE))


def test_panel_says_whether_depth_was_pasted_in():
    frame = make_frame(48, 64)
    plain, pasted, scored = draw_panel(frame), draw_panel(frame, is_pasted=True), draw_panel(
        frame, scores={"AbsRel": 0.04, "delta1": 0.97})
    assert plain.shape == pasted.shape and not np.array_equal(plain, pasted)
    assert np.array_equal(plain[:-60], pasted[:-60])  # only the last line differs
    assert not np.array_equal(plain, scored)
    line = panels.scores_line({"abs_rel": 0.0431, "delta1": 0.97, "rmse": 0.2, "seam": -1})
    assert line == "AbsRel 0.043, δ1 0.970, RMSE 0.200 m, seam \N{MINUS SIGN}1.000"


@pytest.mark.parametrize("layout", ["row", "grid"])
@pytest.mark.parametrize("width", [640, 1600])
def test_panel_width_layout_theme_title(layout, width):
    frame = make_frame(48, 64)
    light = draw_panel(frame, layout=layout, width=width)
    dark = draw_panel(frame, layout=layout, width=width, theme="dark")
    titled = draw_panel(frame, layout=layout, width=width, title="A room", note="More words.")
    assert light.shape[1] == width and light.shape == dark.shape and titled.shape[0] > light.shape[0]
    assert tuple(light[0, 0]) == style.rgb(style.theme("light")["paper"])
    assert tuple(dark[-1, -1]) == style.rgb(style.theme("dark")["paper"])
    assert np.array_equal(light, draw_panel(frame, layout=layout, width=width))


def test_panel_of_a_frame_without_depth_and_of_a_tall_one():
    frame = make_frame(540, 360, holes=1.0)
    assert not frame.has_depth
    prediction = np.full((540, 360), 2.0, np.float32)
    panel = draw_panel(frame, prediction)
    assert panel.shape[1] == 1600
    with pytest.raises(Mask3DError):
        draw_panel(frame, np.full((540, 360), np.nan))


@pytest.mark.parametrize("options", [{"layout": "spiral"}, {"prediction": np.ones((5, 5), np.float32)},
                                     {"limits": (3.0, 1.0)}, {"colormap": "jet"}, {"theme": "sepia"}])
def test_panel_refuses(options):
    with pytest.raises(Mask3DError):
        draw_panel(make_frame(48, 64), **options)


def test_two_predictions_share_their_scales_whichever_comes_first():
    frame = make_frame(48, 64, holes=0.0)
    near, far = frame.depth - 0.02, frame.depth + 0.4

    def draw(*predictions, **options):
        return panels.comparison_panel(frame.color, frame.depth, frame.is_valid, predictions, mask(3, 4), mask(3, 4, 1),
                                       names=("A", "A"), is_pasted=False, **options)

    one, other = draw(near, far), draw(far, near)
    assert one.shape == other.shape and one.shape[1] == 1600
    gap = round(1600 * 0.012)
    wide = (1600 - 5 * gap) // 4
    cell = lambda picture, column: picture[:, gap + column * (wide + gap):gap + column * (wide + gap) + wide]  # noqa: E731
    upper = one.shape[0] // 2
    np.testing.assert_array_equal(cell(one, 2)[:upper - 40], cell(other, 3)[:upper - 40])  # predictions stand in the upper row
    np.testing.assert_array_equal(cell(one, 1)[upper + 40:-60], cell(other, 2)[upper + 40:-60])  # errors in the lower one
    assert not np.array_equal(cell(one, 2)[:upper - 40], cell(one, 3)[:upper - 40])
    assert not np.array_equal(one, draw(near, far, scores=({"abs_rel": 0.1}, {"abs_rel": 0.2})))
    with pytest.raises(Mask3DError, match="size"):
        draw(near, far[:24])
