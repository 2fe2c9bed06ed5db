"""Hide and guess: two ratio sliders, painting per modality, prediction, truth and signed error, the opponents beside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_core.masking import NEVER, visible_count
from mask3d_viz import style
from mask3d_viz.explorers.base import STILL_WIDTH, Explorer, opened
from mask3d_viz.explorers.evidence import evidence_html
from mask3d_viz.explorers.hidden_object import HiddenObject
from mask3d_viz.explorers.questions import picture_arrows
from mask3d_viz.explorers.readout import say_values
from mask3d_viz.explorers.studio import in_words
from mask3d_viz.images import depth_image, error_end, error_image, where_never_measured
from mask3d_viz.reconstruction import panel, panel_of_two
from mask3d_viz.session import COLOR_SOURCES, Session
from mask3d_viz.widgets.patch_image import NOTHING_MEASURED, PatchImage

PRESETS = {"80 / 80": (0.8, 0.8), "80 / 95": (0.8, 0.95), "RGB only": (0.0, 1.0), "depth only": (1.0, 0.8),
           "nothing hidden": (0.0, 0.0)}
SEEN = ("rgb", "depth")
ERROR = "Error: prediction − truth"
WORDS = {"rgb": "RGB", "depth": "depth"}
CANNOT_SHOW = "cannot be shown"
HIDE_OBJECT = "hide the depth of the selected object and show all colour: does colour alone bring it back?"
OF_B = ("prediction of B", "error of B")


class MaskExplorer(Explorer):
    """RGB seen, depth seen, prediction, truth and signed error of one frame, under the reader's masks; B's beside A's.

    Args:
        session: what it shows and changes.
        width: of each picture at most, CSS pixels.
    """

    function, here, compares = "explore_masks", "masks", True

    def __init__(self, session: Session, width: int = 400):
        super().__init__(session)
        blank = np.zeros((*session.model()[0].config.image_size, 3), np.uint8)
        self.hidden_object = HiddenObject(self.studio.predictions, self._say_of_object)
        make = lambda label, **more: PatchImage.of(blank, session.patch, label=label, max_width=width, **more)  # noqa: E731
        self.pictures = {
            "rgb": make("RGB seen", ratio_control=True, can_paint=True),
            "depth": make("Depth seen", ratio_control=True, can_paint=True),
            "prediction": make("Prediction", mask_style="none"), "truth": make("Truth", mask_style="none"),
            "error": make(ERROR, mask_style="none"), **{name: make(name, mask_style="none") for name in OF_B}}
        self._build_controls()
        self.evidence, self.of_object = widgets.HTML(), widgets.HTML(layout=widgets.Layout(margin="0"))
        row = widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="14px", align_items="flex-start")
        self._width = width
        self._tiles = {name: widgets.Box([p], layout=widgets.Layout(flex="1 1 240px", max_width=f"{width + 12}px",
                                                                    min_width="200px"))
                       for name, p in self.pictures.items() if name not in OF_B}
        self.tiles = widgets.Box([*self._tiles.values(), self.evidence], layout=row)
        self._tiles["error"].layout.order, self._tiles["truth"].layout.order, self.evidence.layout.order = "0", "1", "2"
        self.children = [self.controls, self.more_controls, self.message, self.of_object, self.tiles]
        self._listen()
        self.begin()
        self._ends.append(self.studio.on_arrows(self._point))
        self._point()

    def _build_controls(self) -> None:
        session = self.session
        plain = {"layout": widgets.Layout(width="auto")}
        sized = lambda width: {"layout": widgets.Layout(width=width), "style": {"description_width": "initial"}}  # noqa: E731
        self.frame = widgets.BoundedIntText(min=0, max=len(session.frames) - 1, description="frame", **sized("110px"))
        self.frame_words = widgets.HTML()
        self.seed = widgets.BoundedIntText(min=0, max=10**6, description="seed", **sized("120px"))
        self.new_mask = widgets.Button(description="new mask", tooltip="another seed: other patches, as many", **plain)
        self.presets = [widgets.Button(description=name, tooltip=f"{a:.0%} of RGB and {b:.0%} of depth hidden", **plain)
                        for name, (a, b) in PRESETS.items()]
        self.undo = widgets.Button(description="undo", tooltip="take the last change back", **plain)
        self.redo = widgets.Button(description="redo", tooltip="do again what was taken back last", **plain)
        self.color_source = widgets.Dropdown(options=COLOR_SOURCES, description="colour", tooltip="whose colour it sees",
                                             **sized("190px"))
        self.is_pasted = widgets.Checkbox(description="paste in seen depth", indent=False, **plain)
        self.hide_object = widgets.Button(description="hide this object", tooltip=HIDE_OBJECT, **plain)
        self.words = widgets.HTML()
        self.colormap = widgets.Dropdown(options=style.DEPTH_COLORMAPS, description="depth in", tooltip="the colours of depth",
                                         **sized("170px"))
        self.is_locked = widgets.Checkbox(description="lock the range", indent=False, **plain,
                                          tooltip="the same metres for the same colour in every frame")
        self.more = widgets.ToggleButton(value=not self._is_part, description="more", tooltip="seed, colours, objects", **plain)
        row = lambda: widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="4px 8px", align_items="center")  # noqa: E731
        self.controls = widgets.Box([self.frame, self.frame_words, self.new_mask, *self.presets, self.undo, self.redo, self.more,
                                     self.words], layout=row())
        self.more_controls = widgets.Box([self.seed, self.color_source, self.is_pasted, self.hide_object, self.colormap,
                                          self.is_locked], layout=row())
        for part in (self.more, self.more_controls):
            part.add_class("mask3d-not-presented")
        self._unfold()
        self.more.observe(lambda _: self._unfold(), "value")

    def _unfold(self) -> None:
        self.more_controls.layout.display = "flex" if self.more.value else "none"

    def _listen(self) -> None:
        self.is_locked.observe(lambda change: self.wish(depth_range=self.limits() if change["new"] else None), "value")
        for name in ("frame", "seed", "color_source", "is_pasted", "colormap"):
            getattr(self, name).observe(lambda change, name=name: self.wish(**{name: change["new"]}), "value")
        self.new_mask.on_click(lambda _: self.wish(seed=self.session.state.seed + 1))
        for button in self.presets:
            button.on_click(lambda b: self._preset(*PRESETS[b.description]))
        self.undo.on_click(lambda _: self.session.undo())
        self.redo.on_click(lambda _: self.session.redo())
        self.hide_object.on_click(lambda _: self._hide_selected())
        for name, picture in self.pictures.items():
            picture.observe(lambda change: self.wish(hover=change["new"]), "hover")
            picture.observe(lambda change: self.wish(selection=tuple(change["new"])), "selection")
        for name in SEEN:
            picture = self.pictures[name]
            picture.observe(lambda change, name=name: self._slide(name, change["new"]), "hidden_count")
            picture.observe(lambda change: None if change["new"] else self.session.end_gesture(), "is_dragging")
            picture.observe(lambda change, name=name: self._stroke(name, change["new"]), "stroke")
            picture.observe(lambda change, name=name: self._request(name, change["new"]), "request")

    def _preset(self, rgb: float, depth: float) -> None:
        """Both ratios, nothing by hand; of several selected patches none is left, they were of the mask before."""
        selection = self.session.state.selection
        self.wish(rgb_ratio=rgb, depth_ratio=depth, painted_rgb=(), painted_depth=(),
                  selection=selection if len(selection) == 1 else ())

    def _slide(self, name: str, hidden: int) -> None:
        count = int((self.session.ranks(name) < NEVER).sum())
        self.wish(f"{name} slider", **{f"{name}_ratio": hidden / count if count else 1.0})

    def _stroke(self, name: str, stroke: dict) -> None:
        if stroke and not self.is_following:
            self.session.paint(name, stroke["patches"], stroke["value"])

    def _request(self, name: str, request: dict) -> None:
        if request and not self.is_following:
            if request["what"] == "undo":
                if not self.session.undo_stroke(name):
                    self.say(f"No stroke on {WORDS[name]} is left to take back.")
            else:
                self.wish(**{f"painted_{name}": ()})

    def _hide_selected(self) -> None:
        selection = self.session.state.selection
        if not selection:
            return self.say("Select a patch on an object first.", warns=True)
        try:
            self.session.hide_object(selection[-1])
        except Mask3DError as problem:
            self.say(in_words(problem), warns=True)

    def follow(self, changed: frozenset[str]) -> None:
        """Move the widgets to the state."""
        state = self.session.state
        self.undo.disabled, self.redo.disabled = not self.session.can_undo, not self.session.can_redo
        if "depth_range" in changed:
            self.is_locked.value = state.depth_range is not None
        for name in ("frame", "seed", "color_source", "is_pasted", "colormap"):
            if name in changed:
                getattr(self, name).value = getattr(state, name)
        for picture in self.pictures.values():
            if "hover" in changed:
                picture.hover = state.hover
            if "selection" in changed:
                picture.selection = list(state.selection)
        if "frame" in changed:
            problem = self.session.object_problem()
            self.hide_object.disabled, self.hide_object.tooltip = bool(problem), problem or HIDE_OBJECT
            self.frame_words.value = words_html(f"of {len(self.session.frames)} · {self.session.frames.name(state.frame)}")
        is_other = changed & {"frame", "painted_depth"} and self.hidden_object.look()
        if is_other or changed & {"frame", "depth_range", "colormap"}:
            self._draw_frame()
        if is_other or changed & {"frame", "color_source"}:
            self._draw_color()
        if changed & {"frame", "seed"}:
            for name in SEEN:
                ranks = self.session.ranks(name)
                self.pictures[name].set_ranks(np.minimum(ranks, NOTHING_MEASURED), lowest="shown first")
        if changed & {"frame", "seed", "rgb_ratio", "depth_ratio", "painted_rgb", "painted_depth", "checkpoint"}:
            for name in SEEN:
                self._hide(name)
                is_seen = name in self.session.model()[0].config.inputs
                self.pictures[name].ratio_control = self.pictures[name].can_paint = is_seen
                self.pictures[name].note = "" if is_seen else "this model never sees it"
            self.words.value = words_html(self.session.words())
        if changed & {"is_pasted", "depth_range", "colormap"} and self.studio.shown is not None:
            self.show()
            self.show_second()
        if changed & {"checkpoint", "compare"}:
            self._arrange()

    def _hide(self, name: str) -> None:
        state, picture = self.session.state, self.pictures[name]
        count = int((self.session.ranks(name) < NEVER).sum())
        is_seen = name in self.session.model()[0].config.inputs
        picture.hidden_count = count - (visible_count(getattr(state, f"{name}_ratio"), count) if is_seen else 0)
        painted = np.zeros(picture.count, np.uint8)
        for patch, value in getattr(state, f"painted_{name}"):
            painted[patch] = value
        picture.painted = painted.tobytes()

    def limits(self) -> tuple[float, float]:
        """The metric range of all depth pictures."""
        return self.session.limits()

    def _point(self) -> None:
        """The arrows of an asked patch, on what was seen."""
        for name in SEEN:
            self.pictures[name].arrows = picture_arrows(self.studio.arrows, name)

    def _draw_frame(self) -> None:
        batch, colormap = self.session.batch(), self.session.state.colormap
        truth = depth_image(batch.depth[0], batch.is_valid[0], self.limits(), colormap)
        for name in ("depth", "truth"):
            self.pictures[name].set_picture(self.hidden_object.outlined(truth) if name == "truth" else truth)
            self.pictures[name].set_bar(colormap, self.limits())

    def _draw_color(self) -> None:
        """The colour that the model would see, whether or not it can predict from it."""
        try:
            color = self.studio.predictions.color()
        except Mask3DError:  # there is no other frame; the line in the panel says so
            color = self.studio.predictions.color("own")
        self.pictures["rgb"].set_picture(self.hidden_object.outlined(color))

    def show(self) -> None:
        """Draw the newest prediction, dimmed where a newer one is on its way, and grey where none can be made."""
        shown, is_stale = self.studio.shown, self.studio.is_stale
        for name in ("prediction", "error"):
            tile, self.pictures[name].stale = self._tiles[name], is_stale
            (tile.add_class if self.cannot_show else tile.remove_class)("mask3d-unshown")
        if self.cannot_show:
            self._show_nothing()
        if shown is None or is_stale or self.studio.error:
            return
        r, state = shown.reconstruction, self.session.state
        depth = r.pasted if state.is_pasted else r.prediction
        end = error_end(self.limits())
        drawn = where_never_measured(depth_image(depth, None, self.limits(), state.colormap), r.is_valid)
        self.pictures["prediction"].set_picture(self.hidden_object.outlined(drawn))
        self.pictures["prediction"].set_bar(state.colormap, self.limits())
        self.pictures["prediction"].note = ("scale assumed: no depth visible" if r.is_scale_assumed
                                            else "seen depth pasted in" if state.is_pasted else "nothing pasted")
        self.pictures["error"].set_picture(self.hidden_object.outlined(error_image(depth, r.depth, r.is_valid, end)))
        self.pictures["error"].set_bar(style.ERROR_COLORMAP, (-end, end))
        self.pictures["error"].note = ""
        for name in self._tiles:
            say_values(self.pictures[name], shown)
        self._show_evidence()
        self.hidden_object.measure(shown)

    def _show_nothing(self) -> None:
        """No prediction of the state as it is can be made: nothing old is left that could be taken for one."""
        for name in ("prediction", "error"):
            self.pictures[name].note = CANNOT_SHOW
        for name in self._tiles:
            self.pictures[name].set_values({})
        self._show_evidence()
        self.of_object.value = ""

    def _say_of_object(self, said: str) -> None:
        self.of_object.value = words_html(said)

    # ---- checkpoint B -----------------------------------------------------------------------------------------------

    @property
    def is_two(self) -> bool:
        """Whether B's pictures stand beside A's: one is chosen, and can be shown."""
        return self.comparison.is_wanted and not self.comparison.error

    def _arrange(self) -> None:
        """One picture a tile, or A's and B's side by side in one twice as wide."""
        state, is_two = self.session.state, self.is_two
        for part, how in ((self._tiles["prediction"], "flex"), (self._tiles["error"], "flex"), (self.evidence, None)):
            part.layout.display = how if self.predicts_depth else "none"
        for name, second, title in (("prediction", OF_B[0], "Prediction"), ("error", OF_B[1], "Error")):
            tile, pictures = self._tiles[name], [self.pictures[name], *([self.pictures[second]] if is_two else [])]
            if list(tile.children) != pictures:
                tile.children = pictures
                tile.layout.flex = "2 1 480px" if is_two else "1 1 240px"
                (tile.add_class if is_two else tile.remove_class)("mask3d-wide")
                tile.layout.max_width = f"{2 * self._width + 24 if is_two else self._width + 12}px"
                tile.layout.grid_gap = "12px"
            alone = ERROR if name == "error" else title
            self.pictures[name].label = f"{title} of A: {state.checkpoint}" if is_two else alone
            self.pictures[second].label = f"{title} of B: {state.compare}"

    def show_second(self) -> None:
        """Draw B's newest prediction on A's scales, dimmed where a newer one is on its way."""
        comparison, state = self.comparison, self.session.state
        self._arrange()
        for name in OF_B:
            self.pictures[name].stale = comparison.is_stale and not self.cannot_show
        found = comparison.shown
        if found is not None and not comparison.is_stale:
            r = found.second.reconstruction
            depth = r.pasted if state.is_pasted else r.prediction
            first, second = (self.pictures[name] for name in OF_B)
            end = error_end(self.limits())
            first.set_picture(where_never_measured(depth_image(depth, None, self.limits(), state.colormap), r.is_valid))
            first.set_bar(state.colormap, self.limits())
            first.note = self.pictures["prediction"].note
            second.set_picture(error_image(depth, r.depth, r.is_valid, end))
            second.set_bar(style.ERROR_COLORMAP, (-end, end))
            for picture in (first, second):
                say_values(picture, found.second)
        if self.studio.shown is not None:
            self._show_evidence()

    def second_problem(self) -> str:
        """Why B's pictures are not there."""
        return self.comparison.error

    def _show_evidence(self) -> None:
        """The numbers; B's beside them once they are of the same prediction of A's."""
        if self.cannot_show:
            self.evidence.value = ""
            return
        shown, comparison = self.studio.shown, self.comparison
        found = comparison.shown if not comparison.is_stale else None
        if found is not None and found.first.key != shown.key:
            found = None
        self.evidence.value = evidence_html(shown, found, self.session.state.compare if self.is_two else "")

    def close(self) -> None:
        """End the worker too."""
        self.hidden_object.close()
        super().close()

    # ---- evidence, panels, still ------------------------------------------------------------------------------------

    def evidence_texts(self) -> Sequence[widgets.Widget]:
        """The table, and the line about a hidden object."""
        return [self.evidence, self.of_object]

    def judged(self) -> None:
        """The opponents' rows."""
        self._show_evidence()

    def panels(self) -> Sequence[widgets.Widget]:
        """A tile per picture."""
        return list(self._tiles.values())

    def after(self) -> Sequence[widgets.Widget]:
        """The tiles that come after the others: what is guessed is compared with it."""
        return [self._tiles["truth"]]

    def projected(self) -> Sequence[widgets.Widget]:
        """What depth was seen and what was made of it; with a B, what both made of it."""
        return [self._tiles["prediction"]] if self.is_two else [self._tiles["depth"], self._tiles["prediction"]]

    def still(self, theme: str = "light") -> np.ndarray:
        """The panel of the newest prediction, B's pictures beside A's where one is chosen."""
        shown, compared, state = self.studio.newest(), self.compared(), self.session.state
        options = {"pasted": state.is_pasted, "theme": theme, "width": STILL_WIDTH, "limits": state.depth_range,
                   "colormap": state.colormap}
        if compared is None:
            return panel(shown.reconstruction, **options)
        names = tuple(f"{letter}: {name}" for letter, name in zip("AB", compared.names))
        return panel_of_two(shown.reconstruction, compared.second.reconstruction, names, compared.scores, note=compared.note,
                            **options)


def words_html(text: str) -> str:
    """A line beside the controls."""
    return f'<span style="font-size:13px">{escape(text)}</span>' if text else ""


def explore_masks(session: Session, present: bool = False, **options) -> MaskExplorer:
    """Hide patches by two sliders or by hand and see prediction, truth and error; see :class:`MaskExplorer`."""
    return opened(MaskExplorer(session, **options), present)


__all__ = ["MaskExplorer", "evidence_html", "explore_masks"]
