"""The trivial opponents and the interpolation under them, against known answers and against brute force."""

import math

import numpy as np
import pytest
import torch

from mask3d_core.errors import Mask3DError
from mask3d_core.evaluation import OPPONENTS, MeanMap, depth_metrics, predict
from mask3d_core.interpolation import fill_nearest, fill_smooth, nearest_known, plane_trend
from mask3d_core.masking import Masks, to_pixels

DEPTH_ONLY = [name for name in OPPONENTS if name != "color_guided"]


@pytest.fixture(autouse=True)
def one_thread():
    """Many small operations: on a busy machine the threads of one wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def scene(b=2, height=48, width=64, hidden=0.8, holes=0.05):
    """Depth of a tilted plane in space, what is known of it, colour, and where colour is visible."""
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    tilt = 0.1 * torch.arange(b)[:, None, None]
    depth = 1.0 / (0.3 + 0.25 * rows + (0.1 + tilt) * columns)
    is_valid = torch.rand(b, height, width) >= holes
    masks = Masks.random((hidden, hidden), torch.arange(b), 0, is_valid, 8)
    grid = (height // 8, width // 8)
    is_known = is_valid & ~to_pixels(masks.depth, grid, 8)
    color = torch.rand(b, 3, *grid).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return depth, is_known, color, ~to_pixels(masks.rgb, grid, 8)


def equations(height, width, across, down, stiffness):
    """The energy's matrix, written down pixel by pixel."""
    index = np.arange(height * width).reshape(height, width)
    matrix = np.zeros((height * width, height * width))

    def add(cells, coefficients, weight):
        for a, ca in zip(cells, coefficients, strict=True):
            for b, cb in zip(cells, coefficients, strict=True):
                matrix[a, b] += weight * ca * cb

    for y in range(height):
        for x in range(width):
            if x + 1 < width:
                add((index[y, x], index[y, x + 1]), (1, -1), across[y, x])
            if y + 1 < height:
                add((index[y, x], index[y + 1, x]), (1, -1), down[y, x])
            if x + 2 < width:
                add(index[y, x:x + 3], (1, -2, 1), stiffness * min(across[y, x], across[y, x + 1]))
            if y + 2 < height:
                add(index[y:y + 3, x], (1, -2, 1), stiffness * min(down[y, x], down[y + 1, x]))
            if x + 1 < width and y + 1 < height:
                weight = min(across[y, x], across[y + 1, x], down[y, x], down[y, x + 1])
                add(index[y:y + 2, x:x + 2].ravel(), (1, -1, -1, 1), 2 * stiffness * weight)
    return matrix


@pytest.mark.parametrize("stiffness", [0.0, 5.0, 300.0])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_surface_solves_the_equations(stiffness, is_weighted):
    height, width = 32, 40  # two grids
    generator = np.random.default_rng(0)
    across = 10.0 ** generator.uniform(-2, 0, (height, width - 1)) if is_weighted else np.ones((height, width - 1))
    down = 10.0 ** generator.uniform(-2, 0, (height - 1, width)) if is_weighted else np.ones((height - 1, width))
    known = (generator.random((height // 8, width // 8)) < 0.3).repeat(8, 0).repeat(8, 1)
    value = generator.normal(size=(height, width))
    matrix, free = equations(height, width, across, down, stiffness), ~known.ravel()
    expected = value.ravel().copy()
    expected[free] = np.linalg.solve(matrix[np.ix_(free, free)], -matrix[np.ix_(free, ~free)] @ expected[~free])
    surface = fill_smooth(*(torch.from_numpy(x)[None] for x in (value.astype(np.float32), known)), stiffness,
                          *(torch.from_numpy(x.astype(np.float32))[None] for x in (across, down)), tolerance=1e-5,
                          iterations=200)
    spread = np.abs(expected).max()
    assert np.abs(surface[0].numpy().ravel() - expected).max() < 5e-3 * spread
    rough = fill_smooth(torch.from_numpy(value.astype(np.float32))[None], torch.from_numpy(known)[None], stiffness,
                        *(torch.from_numpy(x.astype(np.float32))[None] for x in (across, down)))
    assert np.abs(rough[0].numpy().ravel() - expected).mean() < 5e-3 * spread


@pytest.mark.parametrize("height, width", [(37, 53), (1, 30), (30, 1), (135, 90)])
def test_any_size_can_be_filled(height, width):
    value = torch.linspace(-1, 1, height)[:, None] + torch.linspace(-1, 1, width)
    known = torch.rand(1, height, width) < 0.3
    surface = fill_smooth(value[None], known, 64.0)
    assert torch.equal(surface[known], value[None][known])
    assert (surface - value).abs().mean() < 0.02


def test_four_cycles_come_within_two_thousandths():
    """With tolerance 0 nobody asks the device; four cycles are enough for a spline without a guide picture."""
    rows, columns = torch.meshgrid(torch.linspace(-2, 2, 120), torch.linspace(-2, 3, 160), indexing="ij")
    value = (torch.sin(2 * rows) * torch.cos(3 * columns))[None]
    known = (torch.rand(1, 15, 20) < 0.2).repeat_interleave(8, 1).repeat_interleave(8, 2)
    exact = fill_smooth(value, known, 128.0, tolerance=1e-6, iterations=100)
    errors = [(fill_smooth(value, known, 128.0, tolerance=0.0, iterations=n) - exact).abs().mean() for n in (1, 4)]
    assert errors[1] < 2e-3 * exact.std() < errors[0]


def test_frames_of_a_batch_do_not_touch_each_other():
    depth, known, color, shown = scene(3, 96, 128)
    for opponent in OPPONENTS.values():
        together = opponent(depth, known, color, shown)
        alone = torch.cat([opponent(depth[i:i + 1], known[i:i + 1], color[i:i + 1], shown[i:i + 1]) for i in range(3)])
        assert torch.allclose(together, alone, rtol=1e-3)


@pytest.mark.parametrize("share", [0.002, 0.05, 0.5, 1.0])
def test_nearest_against_brute_force(share):
    known = torch.rand(2, 23, 31) < share
    known[:, 4, 29] = True
    index, squared = nearest_known(known)
    rows, columns = torch.meshgrid(torch.arange(23), torch.arange(31), indexing="ij")
    for b in range(2):
        y, x = known[b].nonzero().unbind(1)
        distance = (rows[..., None] - y).square() + (columns[..., None] - x).square()
        assert torch.equal(squared[b].long(), distance.amin(-1))
        to_chosen = (rows - index[b] // 31).square() + (columns - index[b] % 31).square()
        assert torch.equal(to_chosen, distance.amin(-1))
        assert known[b].flatten()[index[b].flatten()].all()


def test_nearest_on_a_step_edge():
    value = torch.tensor([[[1.0, 0.0, 0.0, 0.0, 0.0, 3.0]]])
    known = torch.tensor([[[True, False, False, False, False, True]]])
    assert fill_nearest(value, known).tolist() == [[[1, 1, 1, 3, 3, 3]]]


def test_a_plane_in_space_is_linear_in_inverse_depth():
    depth, known, color, shown = scene()
    inner = torch.zeros_like(known)
    inner[:, 8:-8, 8:-8] = True
    counted = ~known & inner
    exact = depth_metrics(OPPONENTS["linear_inverse"](depth, known, color, shown), depth, counted)["abs_rel"]
    assert exact.max() < 0.002
    for name, least in (("linear", 2.0), ("nearest", 10.0), ("mean", 50.0)):
        error = depth_metrics(OPPONENTS[name](depth, known, color, shown), depth, counted)["abs_rel"]
        assert (error > least * exact).all(), name


def test_linear_is_exact_for_depth_that_is_linear_in_the_picture():
    depth, known, color, shown = scene()
    depth = 1 + depth.reciprocal()  # linear in rows and columns
    error = (OPPONENTS["linear"](depth, known, color, shown) - depth).abs()[:, 8:-8, 8:-8]
    assert error.max() < 0.02 and error.mean() < 0.002


def test_the_plane_that_fits_best():
    depth, known, _, _ = scene()
    value = depth.reciprocal()
    assert torch.allclose(plane_trend(value, known, 1e-6), value, atol=1e-4)
    flat = plane_trend(value, known, 1e6)  # a strong pull leaves the mean
    mean = torch.where(known, value, 0.0).sum((1, 2)) / known.sum((1, 2))
    assert torch.allclose(flat, mean[:, None, None].expand_as(flat), atol=1e-4)


def test_mean_and_median_are_of_the_known_pixels():
    depth = torch.tensor([[[1.0, 2.0, 9.0, 100.0]]])
    known = torch.tensor([[[True, True, True, False]]])
    color, shown = torch.zeros(1, 3, 1, 4), torch.ones(1, 1, 4, dtype=torch.bool)
    assert OPPONENTS["mean"](depth, known, color, shown).unique().tolist() == [4.0]
    assert OPPONENTS["median"](depth, known, color, shown).unique().tolist() == [2.0]


@pytest.mark.parametrize("name", OPPONENTS)
def test_what_is_hidden_never_enters(name):
    """Every hidden depth and hidden colour changed, to NaN even: the same bits come out."""
    depth, known, color, shown = scene()
    expected = predict(name, depth, known, color, shown, 2.0).depth
    for spoil in (7.0, math.nan):
        other_depth = torch.where(known, depth, torch.tensor(spoil))
        other_color = torch.where(shown[:, None], color, torch.tensor(spoil))
        assert torch.equal(predict(name, other_depth, known, other_color, shown, 2.0).depth, expected)
        assert torch.equal(OPPONENTS[name](other_depth, known, other_color, shown), expected)


@pytest.mark.parametrize("name", [n for n in OPPONENTS if n not in ("mean", "median")])
def test_known_pixels_keep_their_depth_and_the_rest_stays_in_range(name):
    depth, known, color, shown = scene()
    filled = OPPONENTS[name](depth, known, color, shown)
    assert torch.allclose(filled[known], depth[known], rtol=1e-6)
    for b in range(2):
        seen = depth[b][known[b]]
        assert filled[b].min() >= seen.min() * (1 - 1e-6) and filled[b].max() <= seen.max() * (1 + 1e-6)


@pytest.mark.parametrize("name", OPPONENTS)
def test_one_known_pixel_is_all_there_is(name):
    depth, _, color, shown = scene(1)
    known = torch.zeros_like(depth, dtype=torch.bool)
    known[0, 10, 20] = True
    filled = OPPONENTS[name](depth, known, color, shown)
    assert torch.allclose(filled, depth[0, 10, 20].expand_as(filled), rtol=1e-5)


@pytest.mark.parametrize("name", OPPONENTS)
def test_nothing_known_falls_back_and_says_so(name):
    depth, known, color, shown = scene()
    known[1] = False
    raw = OPPONENTS[name](depth, known, color, shown)
    assert raw[1].isnan().all() and raw[0].isfinite().all()
    fallback = torch.rand_like(depth) + 1
    answer = predict(name, depth, known, color, shown, fallback)
    assert answer.is_fallback.tolist() == [False, True]
    assert torch.equal(answer.depth[1], fallback[1]) and torch.equal(answer.depth[0], raw[0])
    assert predict(name, depth, known, color, shown, 2.5).depth[1].unique().tolist() == [2.5]


def test_colour_edges_hold_the_interpolation_back():
    """Two walls, 1 m and 2 m, of two colours, the border between them oblique and away from the patch borders."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    depth = torch.where(columns + 0.4 * rows < 58, 1.0, 2.0)[None]
    _, known, _, _ = scene(1, 64, 96, hidden=0.7)
    color = (depth[:, None] - 1).expand(1, 3, 64, 96)
    everywhere, nowhere = torch.ones_like(known), torch.zeros_like(known)
    error = {}
    for label, shown in (("seen", everywhere), ("hidden", nowhere)):
        filled = OPPONENTS["color_guided"](depth, known, color, shown)
        error[label] = depth_metrics(filled, depth, ~known)["abs_rel"].item()
    plain = OPPONENTS["linear_inverse"](depth, known, color, nowhere)
    assert torch.allclose(OPPONENTS["color_guided"](depth, known, color, nowhere), plain, rtol=1e-4)
    assert error["seen"] < 0.8 * error["hidden"]


@pytest.mark.parametrize("name", DEPTH_ONLY)
def test_the_others_look_at_no_colour(name):
    depth, known, color, shown = scene()
    assert torch.equal(OPPONENTS[name](depth, known, color, shown), OPPONENTS[name](depth, known, 1 - color, ~shown))


def test_wrong_input_is_refused_in_words():
    depth, known, color, shown = scene()
    with pytest.raises(Mask3DError, match="mean, median, nearest"):
        predict("oracle", depth, known, color, shown, 1.0)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(Mask3DError, match="known depth"):
            predict("nearest", torch.where(known, torch.tensor(bad), depth), known, color, shown, 1.0)


def cameras(*focal):
    return torch.tensor([[f, f, 9.5, 5.5] for f in focal])


def test_mean_map_is_in_canonical_metres_and_comes_back_in_each_cameras_own():
    valid = torch.ones(1, 12, 20, dtype=torch.bool)
    near, far = torch.full((1, 12, 20), 2.0), torch.full((1, 12, 20), 6.0)
    found = MeanMap.fit([(near, valid, cameras(100.0)), (far, valid, cameras(200.0))], reference_focal=100.0)
    assert found.frames == 2 and torch.allclose(found.values, torch.tensor(2.5))  # 2 m and 6 x 100 / 200 m
    assert found.predict(cameras(100.0, 200.0)).mean((1, 2)).tolist() == pytest.approx([2.5, 5.0])


def test_mean_map_leaves_holes_out_and_fills_what_nobody_saw():
    depth = torch.full((2, 4, 6), 3.0)
    depth[1] = 5.0
    valid = torch.ones(2, 4, 6, dtype=torch.bool)
    valid[1, :, 3:] = False
    valid[:, :, 5] = False
    depth[~valid] = math.nan
    found = MeanMap.fit([(depth, valid, cameras(1.0, 1.0))], 1.0)
    assert found.values[0].tolist() == [4, 4, 4, 3, 3, 3]


def test_mean_map_refuses_nothing_and_mixed_sizes():
    with pytest.raises(Mask3DError, match="valid depth"):
        MeanMap.fit([(torch.ones(1, 4, 6), torch.zeros(1, 4, 6, dtype=torch.bool), cameras(1.0))], 1.0)
    with pytest.raises(Mask3DError, match="valid depth"):
        MeanMap.fit([], 1.0)
    one, other = torch.ones(1, 4, 6), torch.ones(1, 4, 8)
    with pytest.raises(Mask3DError, match="one size"):
        MeanMap.fit([(d, torch.ones_like(d, dtype=torch.bool), cameras(1.0)) for d in (one, other)], 1.0)


def test_as_strong_as_known_on_real_kinect_frames(shared_data):
    """80 % of the 16-px patches hidden; others measured nearest 0.056-0.069 and linear in inverse depth 0.057."""
    from mask3d_core.sources.tum import TumSequence

    source = TumSequence(shared_data / "tum_fr1_rpy")
    frames = [source.read(i).resize(240, 320) for i in range(0, len(source), 14)]
    depth, is_valid = (torch.stack([torch.from_numpy(getattr(f, k)) for f in frames]) for k in ("depth", "is_valid"))
    color = torch.stack([torch.from_numpy(f.color) for f in frames]).permute(0, 3, 1, 2) / 255
    masks = Masks.random((0.8, 0.8), torch.arange(len(frames)), 0, is_valid, 16)
    hidden, shown = to_pixels(masks.depth, (15, 20), 16), ~to_pixels(masks.rgb, (15, 20), 16)
    scores = {name: depth_metrics(predict(name, depth, is_valid & ~hidden, color, shown, 2.0).depth, depth,
                                  is_valid & hidden) for name in OPPONENTS}
    error = {name: value["abs_rel"].mean().item() for name, value in scores.items()}
    assert 0.25 < error["mean"] < 0.38
    assert 0.045 < error["nearest"] < 0.075 and scores["nearest"]["delta1"].mean() > 0.92
    assert error["linear_inverse"] < min(0.057, error["nearest"], error["linear"])
    assert error["color_guided"] < 1.02 * error["linear_inverse"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", OPPONENTS)
def test_the_same_on_a_gpu(name):
    given = scene(3, 96, 128)
    here = OPPONENTS[name](*given)
    there = OPPONENTS[name](*(tensor.cuda() for tensor in given)).cpu()
    assert torch.allclose(here, there, rtol=5e-3)
