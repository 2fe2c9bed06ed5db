"""You are the model: set the depth of a few hidden patches, and see yourself, interpolation and Mask3D in centimetres."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation import OPPONENTS
from mask3d_core.masking import to_pixels
from mask3d_viz import style
from mask3d_viz.curves import TEXT, blank_chart, figure_image, figure_svg, theme_variables
from mask3d_viz.drawing import blank, contact_sheet, number, paste, text_block
from mask3d_viz.explorers.base import STILL_WIDTH, Explorer, opened
from mask3d_viz.explorers.readout import Extra, say_values
from mask3d_viz.explorers.studio import in_words
from mask3d_viz.images import Marked, depth_image, masked_color_image, masked_depth_image
from mask3d_viz.pixels import cell_edges, cut_patches, patch_means, resize_nearest
from mask3d_viz.ratio_view import OPPONENT_WORDS
from mask3d_viz.session import Session
from mask3d_viz.widgets.patch_image import PatchImage

COUNT = 5
LEAST_MEASURED = 0.5  # share of a patch's pixels: only then has it one depth to speak of
SCALE = 2  # the pictures are drawn larger, so that the numbers in the patches can be read
GUESSERS = ("mean", "linear_inverse")
IN_A_BOX = ("you", "Mask3D", "the truth")  # from left to right, in the picture of a revealed patch


class DepthGuess(Explorer):
    """The reader as the model: a slider in metres for each of a few hidden patches, then everybody's error.

    Args:
        session: which frame, which masks; the patches are chosen among those whose depth is hidden.
        count: how many patches.
        width: of each picture at most, CSS pixels.
    """

    function, here = "guess_depth", "prediction"

    def __init__(self, session: Session, count: int = COUNT, width: int = 420):
        super().__init__(session)
        self.count, self.patches, self.is_revealed = count, (), False
        size = session.model()[0].config.image_size
        empty = np.zeros((size[0] * SCALE, size[1] * SCALE, 3), np.uint8)
        self.pictures = {name: PatchImage.of(empty, session.patch * SCALE, label=label, mask_style="none", max_width=width)
                         for name, label in (("rgb", "RGB seen"), ("depth", "Depth seen, and your guesses"))}
        self.sliders = [widgets.FloatSlider(min=0.1, max=10, step=0.05, readout_format=".2f", description=f"patch {k + 1}",
                                            layout=widgets.Layout(width="100%")) for k in range(count)]
        self.see_all = widgets.Checkbox(description="cheat: see all of the colour", indent=False)
        self.button = widgets.Button(description="reveal", tooltip="everybody's error in centimetres")
        self.again = widgets.Button(description="another mask", tooltip="other patches, another try")
        self.result = widgets.HTML()
        tile = lambda part, most: widgets.Box(part, layout=widgets.Layout(  # noqa: E731
            display="flex", flex_flow="column", flex="1 1 270px", min_width="200px", max_width=f"{most}px"))
        self.tiles = [*(tile([picture], width + 12) for picture in self.pictures.values()),
                      tile([*self.sliders, self.see_all, widgets.HBox([self.button, self.again])], 360)]
        self.children = [widgets.Box(self.tiles, layout=widgets.Layout(
            display="flex", flex_flow="row wrap", grid_gap="14px", align_items="flex-start")), self.result, self.message]
        for slider in self.sliders:
            slider.observe(lambda _: None if self.is_following else self._draw(), "value")
        for picture in self.pictures.values():
            picture.observe(lambda change: self.wish(hover=change["new"]), "hover")
            picture.observe(lambda change: self.wish(selection=tuple(change["new"])), "selection")
        self.see_all.observe(lambda _: self._draw(), "value")
        self.button.on_click(lambda _: self._reveal_if_possible())
        self.again.on_click(lambda _: self.wish(seed=self.session.state.seed + 1))
        self.begin()

    # ---- the game ---------------------------------------------------------------------------------------------------

    def guess(self, *metres: float) -> DepthGuess:
        """Set the guesses from Python, in metres, patch 1 first."""
        if len(metres) != len(self.patches):
            raise ConfigError(f"{len(self.patches)} guesses in metres, one per patch; got {len(metres)}")
        for slider, value in zip(self.sliders, metres):
            slider.value = value
        return self

    def reveal(self) -> dict[str, float]:
        """Show everybody's answers; returns the mean absolute error by name, in centimetres.

        Raises:
            ConfigError: there is nothing to guess.
        """
        if not self.patches:
            raise ConfigError("no hidden patch was measured here: hide some depth first")
        answers = self.answers()
        self.is_revealed = True
        truth = answers["the truth"]
        errors = {name: float(100 * np.abs(values - truth).mean()) for name, values in answers.items() if name != "the truth"}
        self.result.value = _result(answers, errors)
        self._draw()
        return errors

    def answers(self) -> dict[str, np.ndarray]:
        """Metres per patch, by name: means over each patch's measured pixels."""
        shown = self.studio.newest()
        batch, masks = self.session.batch(), self.session.masks()
        known = batch.is_valid & ~to_pixels(masks.depth, self.session.grid, self.session.patch)
        visible = ~to_pixels(masks.rgb, self.session.grid, self.session.patch)
        r = shown.reconstruction
        mean = lambda depth: np.array([depth[cell][r.is_valid[cell]].mean() for cell in self._cells()])  # noqa: E731
        found = {"you": np.array([slider.value for slider in self.sliders[:len(self.patches)]])}
        if known.any():
            for name in GUESSERS:
                found[OPPONENT_WORDS[name]] = mean(OPPONENTS[name](batch.depth, known, batch.color, visible)[0].numpy())
        return {**found, "Mask3D": mean(r.prediction), "the truth": mean(r.depth)}

    def _reveal_if_possible(self) -> None:
        try:
            self.reveal()
        except ConfigError as problem:
            self.say(in_words(problem), warns=True)

    def _cells(self) -> list[tuple[slice, slice]]:
        side, columns = self.session.patch, self.session.grid[1]
        return [np.s_[p // columns * side:(p // columns + 1) * side, p % columns * side:(p % columns + 1) * side]
                for p in self.patches]

    def _choose(self) -> tuple[int, ...]:
        """Hidden patches, well measured, spread over the range of depth; a function of the mask alone."""
        batch, grid = self.session.batch(), self.session.grid
        depth = patch_means(batch.depth[0], batch.is_valid[0], grid).ravel()
        measured = cut_patches(batch.is_valid[0], grid).mean(-1).ravel()
        hidden = self.session.is_masked("depth") & (measured >= LEAST_MEASURED)
        places = np.flatnonzero(hidden)
        if len(places) <= self.count:
            return tuple(int(p) for p in places)
        places = np.random.default_rng(self.session.state.seed).permutation(places)
        places = places[np.argsort(depth[places], kind="stable")]
        bands = np.array_split(places, self.count)  # near to far; one of each band
        return tuple(sorted(int(band[self.session.state.seed % len(band)]) for band in bands))

    # ---- following --------------------------------------------------------------------------------------------------

    def follow(self, changed: frozenset[str]) -> None:
        """Other masks, another game."""
        for picture in self.pictures.values():
            if "hover" in changed:
                picture.hover = self.session.state.hover
            if "selection" in changed:
                picture.selection = list(self.session.state.selection)
        if changed & {"frame", "seed", "rgb_ratio", "depth_ratio", "painted_rgb", "painted_depth", "depth_range", "checkpoint",
                     "color_source"}:
            self.patches, self.is_revealed, self.result.value = self._choose(), False, ""
            near, far = self.limits()
            middle = self._start()
            for slider in self.sliders:  # the picture's range leaves the extremes out; a guess may go there
                slider.min, slider.max = 0.0, max(1.25 * far, middle)
                slider.min, slider.value = min(0.8 * near, middle), middle
            for number_, slider in enumerate(self.sliders):
                slider.disabled = number_ >= len(self.patches)
            self._draw()

    def limits(self) -> tuple[float, float]:
        """The metric range of the pictures and the sliders."""
        return self.session.limits()

    def _start(self) -> float:
        """The mean of the visible depth: what the laziest model says."""
        batch = self.session.batch()
        known = batch.is_valid[0].numpy() & ~to_pixels(self.session.masks().depth, self.session.grid, self.session.patch
                                                       )[0].numpy()
        near, far = self.limits()
        return float(batch.depth[0].numpy()[known].mean()) if known.any() else (near + far) / 2

    def _images(self) -> tuple[Marked, Marked]:
        batch, grid = self.session.batch(), self.session.grid
        size = tuple(SCALE * v for v in batch.depth.shape[1:])
        color = (batch.color[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        color = resize_nearest(color, size)
        if not self.see_all.value:
            color = masked_color_image(color, self.session.is_masked("rgb").reshape(grid))
        depth, is_valid = batch.depth[0].numpy(), batch.is_valid[0].numpy()
        hidden = self.session.is_masked("depth").reshape(grid)
        if self.is_revealed:
            seen = depth_image(resize_nearest(depth, size), resize_nearest(is_valid, size), self.limits(),
                               self.session.state.colormap)
            answers = self.answers()
            return self._numbered(color), self._numbered(seen, [[answers[name][k] for name in IN_A_BOX]
                                                                for k in range(len(self.patches))])
        seen = masked_depth_image(resize_nearest(depth, size), resize_nearest(is_valid, size), hidden, self.limits(),
                                  self.session.state.colormap)
        return self._numbered(color), self._numbered(seen, [[slider.value] for slider in self.sliders[:len(self.patches)]])

    def _numbered(self, image: Marked, metres: Sequence[Sequence[float]] = ()) -> Marked:
        """The picture with the numbered patches, each filled with the depth that is said of it.

        Args:
            image: uint8 (H, W, 3), at ``SCALE`` times the model's size.
            metres: of each patch in turn, one: it fills the patch; several: they fill a box as many patches wide, side by side.
                () leaves the picture.

        Returns:
            uint8 (H, W, 3), with the picture's marks.
        """
        from PIL import Image, ImageDraw

        drawn = Image.fromarray(np.array(image))
        draw = ImageDraw.Draw(drawn)
        ys, xs = (cell_edges(length, cells) for length, cells in zip(image.shape[:2], self.session.grid))
        ends: dict[int, int] = {}  # of the last box in each row: the next one stands beside it, not over it
        for number_, patch in enumerate(self.patches):
            row, column = divmod(patch, self.session.grid[1])
            depths = metres[number_] if metres else ()
            wide = max(1, len(depths))
            first = min(max(column - wide // 2, ends.get(row, 0)), len(xs) - 1 - wide)
            ends[row] = first + wide
            for k, color in enumerate(style.apply_colormap(np.array(depths), *self.limits(), self.session.state.colormap)):
                draw.rectangle((xs[first + k], ys[row], xs[first + k + 1] - 1, ys[row + 1] - 1), fill=tuple(color.tolist()))
            box = (xs[first], ys[row], xs[first + wide] - 1, ys[row + 1] - 1)
            draw.rectangle(box, outline=(17, 19, 22), width=3)
            draw.rectangle([box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1], outline=(25, 227, 255), width=2)
            beside = 0 if wide == 1 else (ys[1] if row == 0 else -ys[1])  # a wide box is not hidden by its number
            draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2 + beside), str(number_ + 1), font=style.font(24, True),
                      anchor="mm", fill=(255, 255, 255), stroke_width=2, stroke_fill=(17, 19, 22))
        found = np.asarray(drawn).view(Marked)
        found.marks = getattr(image, "marks", ())
        return found

    def _draw(self) -> None:
        guesses = np.full(self.session.grid[0] * self.session.grid[1], np.nan)
        guesses[list(self.patches)] = [slider.value for slider in self.sliders[:len(self.patches)]]
        shown = self.studio.newest() if self.is_revealed else None  # before, nothing that is hidden is said
        for picture, image in zip(self.pictures.values(), self._images()):
            picture.set_picture(image)
            say_values(picture, shown, {"your guess": Extra(guesses, "m")})
        self.pictures["depth"].note = f"in each box: {' | '.join(IN_A_BOX)}" if self.is_revealed else ""
        self.pictures["depth"].label = "Depth, revealed" if self.is_revealed else "Depth seen, and your guesses"
        self.pictures["depth"].set_bar(self.session.state.colormap, self.limits())

    def panels(self) -> Sequence[widgets.Widget]:
        """A tile per picture; the sliders beside them always stay."""
        return self.tiles[:2]

    def still(self, theme: str = "light") -> np.ndarray:
        """Both pictures, and the question or the answers."""
        words = (f"What depth do patches 1 to {len(self.patches)} have? Guess in metres, then reveal." if self.patches
                 else "Nothing to guess in this frame: no hidden patch was measured.")
        if self.is_revealed:
            answers = self.answers()
            errors = [f"{name} {100 * np.abs(values - answers['the truth']).mean():.1f} cm" for name, values in answers.items()
                      if name != "the truth"]
            words = ("Mean error over these patches: " + ", ".join(errors)
                     + f". In each box of the depth picture: {' | '.join(IN_A_BOX)}.")
        sheet = contact_sheet(list(self._images()), [p.label for p in self.pictures.values()], 2,
                              cell_width=(STILL_WIDTH - 36) // 2, theme=theme)
        text = text_block(words, sheet.shape[1] - 24, 20, theme=theme)
        below = blank((text.shape[0] + 8, sheet.shape[1]), theme)
        paste(below, text, 0, 12)
        if not self.is_revealed:
            return np.concatenate([sheet, below])
        chart = figure_image(answers_figure(answers, theme))
        last = blank((chart.shape[0], sheet.shape[1]), theme)
        paste(last, chart[:, :sheet.shape[1] - 12], 0, 12)
        return np.concatenate([sheet, below, last])


def answers_figure(answers: dict[str, np.ndarray], theme: str = "light"):
    """What everybody said of each patch, on one axis in metres.

    Args:
        answers: metres per patch by name, as :meth:`DepthGuess.answers` gives them.
        theme: "light" or "dark".

    Returns:
        ``matplotlib.figure.Figure``.
    """
    truth = answers["the truth"]
    figure, axis, colors = blank_chart(0.9 + 0.36 * len(truth), "", theme, 6.6)
    rows, others = np.arange(len(truth)), [name for name in answers if name not in IN_A_BOX]
    looks = {"you": ("o", 0, 11), "Mask3D": ("D", 1, 9), **{name: (mark, 6, 7) for name, mark in zip(others, "xv^s")}}
    axis.hlines(rows, np.minimum(answers["you"], truth), np.maximum(answers["you"], truth), color=style.SERIES[theme][0],
                linewidth=2.5, alpha=0.4)
    axis.plot(truth, rows, "|", color=colors["ink"], markersize=20, markeredgewidth=3, label="the truth")
    for name, (mark, series, size) in looks.items():
        axis.plot(answers[name], rows, mark, color=style.SERIES[theme][series], markersize=size, label=name, alpha=0.9)
    axis.set_yticks(rows, [f"patch {k + 1}" for k in rows])
    axis.set_ylim(len(truth) - 0.4, -0.6)
    axis.set_xlabel("metres", color=colors["ink"], fontsize=TEXT)
    axis.legend(frameon=False, labelcolor=colors["ink"], fontsize=TEXT, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _result(answers: dict[str, np.ndarray], errors: dict[str, float]) -> str:
    """Chart and table, side by side where there is room."""
    chart = figure_svg(answers_figure(answers), "your guess, Mask3D, the others and the truth, patch by patch, in metres")
    return (f"<style>{theme_variables('.mask3d-answers')}</style><div class='mask3d-answers' style='display:flex;flex-wrap:wrap;"
            f"gap:8px 24px;align-items:center;line-height:1.45'><div style='flex:1 1 420px;max-width:560px'>{chart}</div>"
            f"{_table(answers, errors)}</div>")


def _table(answers: dict[str, np.ndarray], errors: dict[str, float]) -> str:
    truth, best = answers["the truth"], min(errors, key=errors.get)
    head = "".join(f"<th style='text-align:right;padding-left:14px;font-weight:500'>patch {k + 1}</th>" for k in range(len(truth)))
    rows = "".join(
        f"<tr style='{'font-weight:600' if name == best else ''}'><td>{escape(name)}{' ◂ best' if name == best else ''}</td>"
        + "".join(f"<td style='text-align:right;padding-left:14px'>{value:.2f} m"
                  + (f" ({'+' if value >= t else ''}{number(100 * (value - t), 0)} cm)" if name != "the truth" else "") + "</td>"
                  for value, t in zip(values, truth))
        + (f"<td style='text-align:right;padding-left:18px'>{errors[name]:.1f} cm</td>" if name in errors else "<td></td>")
        + "</tr>" for name, values in answers.items())
    return (f"<div aria-live='polite'><table style='font-size:13px;border-collapse:collapse'><tr><th></th>{head}"
            "<th style='text-align:right;padding-left:18px;font-weight:500'>mean error</th></tr>"
            f"{rows}</table></div>")


def guess_depth(session: Session, present: bool = False, **options) -> DepthGuess:
    """Be the model: guess the depth of hidden patches; see :class:`DepthGuess`."""
    return opened(DepthGuess(session, **options), present)


__all__ = ["DepthGuess", "guess_depth"]
