"""Charts: what they draw is what they were given; labels never overlap; nothing global is touched."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from mask3d_core.errors import Mask3DError
from mask3d_viz import style
from mask3d_viz.curves import bar_table, error_by_ratio, figure_image, loss_curve, running_mean, spread_out
from mask3d_viz.scores import Score, as_score, score_text

RECORDS = [{"step": 10 * i, "loss": 1.0 / (1 + i)} for i in range(20)] + [{"step": 100, "val": 0.4}, {"note": "saved"}]
SCORES = {"ours": (0.043, 0.040, 0.046), "nearest": {"mean": 0.063, "interval": [0.058, 0.068]}, "mean": 0.301}


def texts(figure):
    axis = figure.axes[0]
    return [t for t in [*axis.texts, *axis.get_xticklabels(), *axis.get_yticklabels(), axis.title, axis.xaxis.label,
                        axis.yaxis.label] if t.get_text()]


def test_loss_curve_draws_the_log():
    figure = loss_curve(RECORDS, {"loss": "training", "val": "held out"}, opponents={"mean": 0.3},
                        band=([0, 200], [0.1, 0.05], [0.9, 0.2]))
    lines = figure.axes[0].lines
    assert lines[0].get_xdata().tolist() == [10 * i for i in range(20)]
    assert lines[0].get_ydata() == pytest.approx([1.0 / (1 + i) for i in range(20)])
    assert (lines[1].get_xdata().tolist(), lines[1].get_ydata().tolist()) == ([100], [0.4])
    assert list(lines[2].get_ydata()) == [0.3, 0.3]
    assert len(figure.axes[0].collections) == 1
    assert {t.get_text() for t in figure.axes[0].texts} == {"training", "held out", "mean"}


def test_loss_that_is_not_finite_is_marked_and_not_hidden():
    records = [*RECORDS, {"step": 55, "loss": None}, {"step": 65, "loss": float("nan")}]
    axis = loss_curve(records).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [55, 65] and axis.lines[0].get_marker() == "x"
    assert "not finite (2)" in axis.get_legend().get_texts()[0].get_text()
    assert np.isfinite(axis.lines[1].get_ydata()).all() and len(axis.lines[1].get_ydata()) == 20


def test_loss_curve_names_the_keys_that_are_there():
    with pytest.raises(Mask3DError, match="loss, note, step, val"):
        loss_curve(RECORDS, ("lost",))
    with pytest.raises(Mask3DError, match="none"):
        loss_curve([])


def test_one_record_and_a_log_scale():
    assert figure_image(loss_curve(RECORDS[:1], log_scale=True)).shape[2] == 3


def test_running_mean_is_the_mean_of_the_last():
    assert running_mean(np.array([2.0, 4.0, 6.0, 8.0]), 2).tolist() == [2.0, 3.0, 5.0, 7.0]
    assert running_mean(np.array([2.0, 4.0]), 1).tolist() == [2.0, 4.0]


@given(st.lists(st.floats(0, 1), max_size=10), st.floats(0.01, 0.1))
def test_spread_out_places_are_apart_and_inside(wanted, gap):
    places = spread_out(sorted(wanted), gap)
    assert len(places) == len(wanted)
    assert all(b - a >= gap - 1e-9 for a, b in zip(places, places[1:]))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)


def test_spread_out_moves_only_what_would_touch():
    assert spread_out([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]
    assert spread_out([0.1, 0.5, 0.52], 0.1) == pytest.approx([0.1, 0.46, 0.56])


def test_end_labels_do_not_overlap_when_drawn():
    figure = loss_curve(RECORDS, opponents={f"opponent {i}": 0.06 + 0.001 * i for i in range(6)})
    figure_image(figure)
    boxes = sorted((Text.get_window_extent(t) for t in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 7
    assert all(below.y1 <= above.y0 + 3 for below, above in zip(boxes, boxes[1:]))
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_bar_table_draws_values_and_intervals():
    axis = bar_table(SCORES, highlight=["ours"]).axes[0]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in dots] == [0.043, 0.063, 0.301]
    bars = [list(line.get_xdata()) for line in axis.lines if line.get_linewidth() == 7]
    assert bars == [[0.040, 0.046], [0.058, 0.068]]
    assert [t.get_text() for t in axis.texts] == ["0.043 [0.040, 0.046]", "0.063 [0.058, 0.068]", "0.301"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["ours", "nearest", "mean"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first on top
    assert axis.get_xlim()[0] == 0 and "95 %" in axis.get_xlabel()
    assert "no interval" in bar_table({"ours": 0.1}).axes[0].get_xlabel()


def test_bar_table_on_a_log_scale():
    figure = bar_table(SCORES, log_scale=True)
    figure_image(figure)
    low, high = figure.axes[0].get_xlim()
    assert 0 < low < 0.040 and high > 0.301


def test_error_by_ratio_leaves_out_what_was_not_measured():
    axis = error_by_ratio([0.0, 0.8, 1.0], {"ours": [0.01, (0.04, 0.03, 0.05), 0.2], "nearest": [0.0, 0.06, None],
                                            "never run": [None] * 3}, highlight=["ours"]).axes[0]
    assert [line.get_xdata().tolist() if hasattr(line.get_xdata(), "tolist") else list(line.get_xdata())
            for line in axis.lines] == [[0.0, 0.8, 1.0], [0.0, 0.8]]
    assert {t.get_text() for t in axis.texts} == {"ours", "nearest"}
    with pytest.raises(Mask3DError, match="one score per ratio, 3"):
        error_by_ratio([0.0, 0.8, 1.0], {"ours": [0.1]})


@pytest.mark.parametrize("theme", style.THEMES)
def test_text_is_large_enough_and_in_the_theme(theme):
    for draw in (lambda: loss_curve(RECORDS, opponents={"mean": 0.3}, title="Loss", theme=theme),
                 lambda: bar_table(SCORES, highlight=["ours"], theme=theme),
                 lambda: error_by_ratio([0, 1], {"a": [1, 2]}, theme=theme)):
        figure = draw()
        image = figure_image(figure)
        assert image.dtype == np.uint8 and image.shape[1] == 1152
        assert tuple(image[0, 0]) == style.rgb(style.theme(theme)["paper"])
        on_page = 736 / image.shape[1]  # 46rem, the width of a chart on a page
        assert texts(figure)
        assert min(t.get_fontsize() * figure.dpi / 72 * on_page for t in texts(figure)) >= style.SMALLEST_FONT
        assert np.array_equal(image, figure_image(draw()))


def test_scores_are_understood():
    assert as_score(0.5) == Score(0.5) and as_score(np.float32(0.5)) == Score(0.5)
    assert as_score({"value": 1, "low": 0, "high": 2}) == Score(1.0, 0.0, 2.0)
    assert as_score({"mean": 1, "interval": None}) == Score(1.0)
    assert score_text(Score(-1.0, -2.0, 0.5), 1) == "\N{MINUS SIGN}1.0 [\N{MINUS SIGN}2.0, 0.5]"


@pytest.mark.parametrize("given_", ["0.5", None, (1, 2), (5.0, 1.0, 2.0), (1.0, None, 2.0), {"low": 1}])
def test_scores_that_make_no_sense_are_refused(given_):
    with pytest.raises(Mask3DError):
        as_score(given_)


@pytest.mark.parametrize("arguments", [({},), ({"a": 1.0}, ["b"])])
def test_bar_table_refuses(arguments):
    with pytest.raises(Mask3DError):
        bar_table(arguments[0], highlight=arguments[1] if len(arguments) > 1 else [])


def test_pyplot_is_never_loaded():
    code = ("import sys; from mask3d_viz.curves import *; figure_image(bar_table({'a': 1.0}));"
            "figure_image(loss_curve([{'step': 0, 'loss': 1.0}])); print('matplotlib.pyplot' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
