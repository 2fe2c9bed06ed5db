"""What the RGB encoder alone keeps: its features as colours, the nearest patches of other frames, a probe for depth."""

from __future__ import annotations

from html import escape

import ipywidgets as widgets
import numpy as np
import torch.nn.functional as F

from mask3d_core.attention import attention_sizes
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.probes import ProbeResult
from mask3d_viz.drawing import text_block
from mask3d_viz.explorers.attention_words import layer_options
from mask3d_viz.explorers.base import STILL_WIDTH, Explorer, as_csv, opened
from mask3d_viz.explorers.features_html import agreement_html, figure, nearest_html, paragraph, probe_html, probe_rows, verdict
from mask3d_viz.explorers.features_still import (COLORS_SAID, TITLES, colors_sentence, component_rows, features_still,
                                                 nearest_rows)
from mask3d_viz.explorers.questions import Overtaken
from mask3d_viz.explorers.readout import Extra, say_values
from mask3d_viz.feature_analysis import GALLERY, SIDES, FeatureAnalysis, Look
from mask3d_viz.features import Neighbour, component_picture, patch_crop
from mask3d_viz.session import Session
from mask3d_viz.widgets.patch_image import PatchImage
from mask3d_viz.worker import Worker

DIMMED = "<div style='opacity:.45'>"  # around words and pictures that are not the newest
LOOKS_AT = frozenset({"frame", "checkpoint", "compare", "layer"})


class FeatureExplorer(Explorer):
    """Features of two RGB encoders (A: the session's checkpoint, B: ``compare``, or A at step 0) and of raw pixels.

    Args:
        session: what it shows and changes; its last selected patch is the one whose neighbours are shown.
        width: of each picture at most, CSS pixels.
        neighbours: how many nearest patches are shown.
        gallery: frames at most in which they are searched.
    """

    function, here, needs_prediction = "explore_features", "rgb encoder", False
    compares, nothing_beside, has_twin = True, "A untrained (step 0)", True

    def __init__(self, session: Session, width: int = 300, neighbours: int = 6, gallery: int = GALLERY):
        super().__init__(session)
        self.analysis, self.neighbours = FeatureAnalysis(session, gallery), neighbours
        self.look: Look | None = None
        self.result: ProbeResult | None = None
        self._looks: dict[tuple, Look] = {}
        self._results: dict[tuple, ProbeResult] = {}
        self._problem, self._question, self._is_closed = "", 0, False
        self.worker, self.prober = Worker(), Worker()
        self._build(width)
        for picture in self.pictures.values():
            picture.observe(lambda change: self.wish(hover=change["new"]), "hover")
            picture.observe(lambda change: self.wish(selection=tuple(change["new"])), "selection")
        self.frame.observe(lambda change: self.wish(frame=change["new"]), "value")
        self.layer.observe(lambda change: self.wish("layer", layer=change["new"]), "value")
        self.probe_button.on_click(lambda _: self.run_probe())
        self.begin()

    def _build(self, width: int) -> None:
        session = self.session
        empty = np.zeros((*session.model()[0].config.image_size, 3), np.uint8)
        labels = {"color": "Colour", "a": "A", "b": "B", "pixels": "Raw pixels"}
        self.pictures = {name: PatchImage.of(empty, session.patch, label=label, max_width=width, mask_style="none")
                         for name, label in labels.items()}
        self.frame = widgets.BoundedIntText(min=0, max=len(session.frames) - 1, description="frame",
                                            layout=widgets.Layout(width="150px"))
        self.layer = widgets.SelectionSlider(options=self._layers(), value=-1, description="layer", continuous_update=False,
                                             tooltip="of A's RGB encoder", layout=widgets.Layout(width="360px"))
        self.progress = widgets.IntProgress(description="looking", layout=widgets.Layout(width="320px", visibility="hidden"))
        self.caption, self.others, self.nearest, self.agrees, self.said = (widgets.HTML() for _ in range(5))
        self.probe_button = widgets.Button(description="probe for depth", icon="play", layout=widgets.Layout(width="auto"),
                                           tooltip="fit one matrix from frozen features to depth and test it on other frames")
        self.probe_progress = widgets.IntProgress(layout=widgets.Layout(width="320px", visibility="hidden"))
        self.probed = widgets.HTML(paragraph("How much depth can one matrix read off the frozen features? About ten seconds "
                                         "on an idle machine; where the session has too few frames, rooms are rendered first."))
        row = lambda *children: widgets.Box(children, layout=widgets.Layout(  # noqa: E731
            display="flex", flex_flow="row wrap", grid_gap="12px", align_items="flex-start"))
        self._tiles = {name: widgets.Box([p], layout=widgets.Layout(flex="1 1 200px", max_width=f"{width + 12}px",
                                                                    min_width="180px")) for name, p in self.pictures.items()}
        self._below = [self.caption, self.others, row(self.nearest, self.agrees), row(self.probe_button, self.probe_progress),
                       self.probed]
        self.children = [row(self.frame, self.layer, self.progress), self.message, self.said,
                         row(*self._tiles.values()), *self._below]

    def close(self) -> None:
        """End the workers too."""
        self._is_closed, self._question = True, self._question + 1
        self.worker.close()
        self.prober.close()
        super().close()

    @property
    def compare(self) -> widgets.Dropdown:
        """The list in which B is chosen."""
        return self.picker.second

    @property
    def asked(self) -> int | None:
        """The patch whose neighbours are shown, or None."""
        selection = self.session.state.selection
        return selection[-1] if selection else None

    # ---- following --------------------------------------------------------------------------------------------------

    def follow(self, changed: frozenset[str]) -> None:
        """Move the widgets to the state; what must be computed is asked for."""
        state = self.session.state
        self.frame.value = state.frame
        if "checkpoint" in changed and list(self.layer.options) != self._layers():
            self.layer.options, self.layer.value = self._layers(), -1
        if -len(self.layer.options) <= state.layer <= -1:
            self.layer.value = state.layer
        for picture in self.pictures.values():
            if "hover" in changed:
                picture.hover = state.hover
            if "selection" in changed:
                picture.selection = list(state.selection)
        if changed & LOOKS_AT:
            self._ask()
            self._show_probe()
        elif "selection" in changed and self.look is not None:
            self._show_nearest()
            self._say_values()

    def show(self) -> None:
        """Predictions are no matter of this view, but for the readouts; what it has to complain of stays."""
        self._complain(self._problem)
        self._say_values()

    def _layers(self) -> list[tuple[str, int]]:
        """The layers of A's RGB encoder by name; the last twelve's numbers where it has none."""
        return layer_options(attention_sizes(self.session.model()[0]).get("rgb", (12, 0))[0])

    def _say_values(self) -> None:
        """Truth, prediction and error of the patches, where the model predicts depth, and how like the asked one they are."""
        look, patch, shown = self.look, self.asked, self.studio.shown
        if self.studio.is_stale or self.studio.error or (shown is not None and shown.key[1] != self.session.state.frame):
            shown = None
        for name, picture in self.pictures.items():
            extra = {}
            if look is not None and patch is not None and name in look.features:
                own = look.features[name][look.place]
                extra["cosine with the asked"] = Extra(F.cosine_similarity(own, own[patch][None], dim=-1))
            say_values(picture, shown, extra)

    def _complain(self, text: str) -> None:
        self._problem = text
        self.said.value = (f'<div role="alert" style="font-size:13px;color:var(--jp-error-color1, #b00020)">{escape(text)}'
                           "</div>" if text else "")

    def _ask(self) -> None:
        state = self.session.state
        try:
            first, second = self.analysis.encoders()
        except Mask3DError as problem:
            self._stale(True)
            return self._complain(str(problem))
        key = (first.model, second.model, min(-1, max(state.layer, -first.encoder.depth)), self.analysis.gallery(), state.frame)
        self._question += 1
        if key in self._looks:
            return self._arrived(self._looks[key])
        question = self._question
        self._stale(True)

        def progress(done: int, total: int) -> None:
            if question != self._question:
                raise Overtaken
            self.progress.max, self.progress.value, self.progress.layout.visibility = total, done, "visible"

        def done(look: Look | None, problem: BaseException | None) -> None:
            if question != self._question:
                return
            self.progress.layout.visibility = "hidden"
            if problem is not None:
                return self._complain(str(problem))
            self._looks[look.key] = look
            while len(self._looks) > 8:
                self._looks.pop(next(iter(self._looks)))
            with self.following():
                self._arrived(look)

        self.worker.ask(lambda: self.analysis.look(progress), done)

    def _stale(self, is_stale: bool) -> None:
        for picture in self.pictures.values():
            picture.stale = is_stale
        for text in (self.caption, self.others, self.nearest, self.agrees):
            bare = text.value.removeprefix(DIMMED).removesuffix("</div>") if text.value.startswith(DIMMED) else text.value
            text.value = f"{DIMMED}{bare}</div>" if is_stale and bare else bare

    def _arrived(self, look: Look) -> None:
        self.look = look
        self.progress.layout.visibility = "hidden"
        self._complain(" ".join(encoder.note for encoder in look.encoders if encoder.note))
        self._stale(False)
        for name, picture in self.pictures.items():
            picture.set_picture(self._picture(name, look.place))
            if name in look.components:
                picture.note = self._note(name)
        self.pictures["a"].label = f"A: {look.encoders[0].words}"
        self.pictures["b"].label = f"B: {look.encoders[1].words}"
        self.caption.value = paragraph(self.sentence() + " " + COLORS_SAID)
        cells = "".join(figure(self._picture(name, place), f"{self._title(name)}, frame {look.frames[place]}", "100%")
                        for place in look.others() for name in self.pictures)
        self.others.value = ("<div style='display:grid;grid-template-columns:repeat(4,minmax(0,190px));gap:8px'>"
                             f"{cells}</div>")
        self.agrees.value = agreement_html(look, self._title)
        self._show_nearest()
        self._say_values()

    def _picture(self, name: str, place: int) -> np.ndarray:
        look = self.look
        if name == "color":
            return look.colors[place]
        return component_picture(look.scores[name][place], look.grid, look.colors.shape[1:3])

    def _title(self, name: str) -> str:
        return TITLES[name]

    def _note(self, side: str) -> str:
        parts = self.look.components[side]
        return f"{sum(parts.explained):.0%} of variance" if side == "a" else f"{parts.likeness:.2f} like A"

    # ---- nearest patches --------------------------------------------------------------------------------------------

    def found(self, side: str) -> list[Neighbour]:
        """The nearest patches of the selected one as crops with words; empty without a selection or another frame.

        Args:
            side: "a", "b" or "pixels".
        """
        look, patch = self.look, self.asked
        if look is None or patch is None or len(look.frames) < 2:
            return []
        made = []
        for place, other, cosine in look.nearest(side, patch, self.neighbours):
            known, said = look.compared(patch, place, other), [f"frame {look.frames[place]}", f"cosine {cosine:.2f}"]
            if "ratio" in known:
                said.append(f"depth {100 * (known['ratio'] - 1):+.0f}%".replace("-", "−"))
            if "label" in known:
                said.append("same class" if known["label"] else "other class")
            made.append(Neighbour(patch_crop(look.colors[place], other, look.grid), "\n".join(said)))
        return made

    def _show_nearest(self) -> None:
        look, patch = self.look, self.asked
        if patch is None:
            self.nearest.value = paragraph("Click a patch in any picture: which patches of the other frames are nearest to it?")
            return
        if len(look.frames) < 2:
            self.nearest.value = paragraph("Nearest patches are searched in other frames; this session has only one.")
            return
        self.nearest.value = nearest_html(look, patch, {self._title(side): self.found(side) for side in SIDES})

    # ---- the probe --------------------------------------------------------------------------------------------------

    def run_probe(self) -> None:
        """Probe A, B and the opponents for depth, in the worker; a second call with the same encoders answers at once."""
        try:
            key = self.analysis.probe_key()
        except Mask3DError as problem:
            return self._complain(str(problem))
        if key in self._results:
            return self._show_probe()

        def progress(what: str, done: int, total: int) -> None:
            if self._is_closed:
                raise Overtaken
            self.probe_progress.description, self.probe_progress.max = what.split()[0], total
            self.probe_progress.value, self.probe_progress.layout.visibility = done, "visible"

        def done(result: ProbeResult | None, problem: BaseException | None) -> None:
            self.probe_button.disabled, self.probe_progress.layout.visibility = False, "hidden"
            if problem is not None:
                return self._complain(str(problem))
            self._results[key] = result
            self._show_probe()

        self.probe_button.disabled = True
        self.prober.ask(lambda: self.analysis.probe(progress), done)

    def _show_probe(self) -> None:
        try:
            key = self.analysis.probe_key()
        except Mask3DError:
            return
        result = self._results.get(key)
        if result is None and self.result is not None:
            self.probed.value = paragraph("The encoders or the layer have changed since the last probe: probe again.")
        self.result = result
        if result is not None:
            self.probed.value = probe_html(result, self.verdict())

    def verdict(self) -> str:
        """What the probe says of A, in one sentence; "" before it ran."""
        if self.result is None:
            return ""
        return verdict(self.result, self.session.state.checkpoint)

    def probe_table(self) -> list[dict]:
        """The probe's scores, one row per encoder and opponent.

        Raises:
            ConfigError: it has not run with these encoders.
        """
        if self.result is None:
            raise ConfigError("the probe has not run with these encoders and this layer yet: run_probe()")
        return probe_rows(self.result)

    # ---- without a browser --------------------------------------------------------------------------------------------

    def sentence(self) -> str:
        """What the colours show, in numbers."""
        return "Nothing was looked at yet." if self.look is None else colors_sentence(self.look)

    def table(self) -> list[dict]:
        """Each patch of the frame: three components of A, of B and of raw pixels, in units of their spread."""
        return component_rows(self._needed())

    def nearest_table(self) -> list[dict]:
        """The nearest patches of the selected one, by encoder; empty where depth, normal or class is not known.

        Raises:
            ConfigError: no patch is selected, or there is no other frame.
        """
        look, patch = self._needed(), self.asked
        if patch is None:
            raise ConfigError("no patch was asked yet: click one first")
        return nearest_rows(look, patch, self.neighbours)

    def files(self):
        """Besides picture and components: the nearest patches."""
        return {**super().files(), "nearest": lambda: ("nearest_patches.csv", as_csv(self.nearest_table()))}

    def panels(self) -> list[widgets.Widget]:
        """A tile per picture, and what stands below them."""
        return [*self._tiles.values(), *self._below]

    def projected(self) -> list[widgets.Widget]:
        """The features of A and of B."""
        return [self._tiles["a"], self._tiles["b"]]

    def _needed(self) -> Look:
        if self.look is None:
            self.worker.wait(120)
        if self.look is None:
            raise ConfigError(self._problem or "the features are still being computed")
        return self.look

    def still(self, theme: str = "light") -> np.ndarray:
        """Pictures of three frames, the nearest patches, and the probe's table where it ran."""
        if self.look is None:
            self.worker.wait(120)
        if self.look is None:
            return text_block(self._problem or "Nothing was looked at yet.", STILL_WIDTH, 18, theme=theme)
        return features_still(self, theme)


def explore_features(session: Session, present: bool = False, **options) -> FeatureExplorer:
    """See what the RGB encoder alone keeps; see :class:`FeatureExplorer`."""
    return opened(FeatureExplorer(session, **options), present)


__all__ = ["FeatureExplorer", "explore_features"]
