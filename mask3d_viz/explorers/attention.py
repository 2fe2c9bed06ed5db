"""Ask this patch: what moves its depth when it is taken away (influence), and where the network looks (attention)."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np

from mask3d_core.attention import ModelAttention, attention_sizes
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.uncertainty import rank_correlation
from mask3d_core.masking import NEVER, visible_count
from mask3d_viz import style
from mask3d_viz.drawing import blank, paste, text_block
from mask3d_viz.explorers.attention_words import (PARTS, entropy_view, head_words, layer_options, layer_words, mass_html,
                                                  row_words)
from mask3d_viz.explorers.base import STILL_WIDTH, Explorer, opened
from mask3d_viz.explorers.questions import (Answer, Questions, answer_html, arrows_of, largest_move, move_words, movers,
                                            picture_arrows, source_words, words)
from mask3d_viz.explorers.readout import Extra, patch_words, say_values
from mask3d_viz.images import depth_image
from mask3d_viz.explorers.studio import in_words
from mask3d_viz.session import Session
from mask3d_viz.widgets.patch_image import NOTHING_MEASURED, PatchImage
from mask3d_viz.widgets.ratio_grid import RatioGrid

HEADS = ("mean", "max", "rollout")
HINT = "Click a patch, in any picture or cloud: what does its depth come from?"
TAKEN, LOOKED = "taken away, it moves by", "attention"  # the view's own numbers in the readouts
NOT_ATTRIBUTION = ("Attention says where values were mixed from; influence, measured by taking patches away, says what "
                   "the answer owes to them. They often disagree.")


class AttentionExplorer(Explorer):
    """Influence and attention of the selected patch, on what the model saw.

    Args:
        session: what it shows and changes; its last selected patch is the one that is asked.
        width: of each picture at most, CSS pixels.
    """

    function, here = "explore_attention", "encoders"

    def __init__(self, session: Session, width: int = 380):
        super().__init__(session)
        blank_picture = np.zeros((*session.model()[0].config.image_size, 3), np.uint8)
        make = lambda label: PatchImage.of(blank_picture, session.patch, label=label, max_width=width)  # noqa: E731
        self.pictures = {"rgb": make("RGB seen: influence"), "depth": make("Depth seen: influence"),
                         "attention rgb": make("RGB encoder: attention"),
                         "attention depth": make("Depth encoder: attention"), "decoder": make("Decoder: attention")}
        self.answer, self.mass, self.waiting = widgets.HTML(), widgets.HTML(), widgets.HTML()
        layers, heads = self._sizes()
        self.layer = widgets.SelectionSlider(options=layer_options(layers), value=-1, description="layer",
                                             continuous_update=False, layout=widgets.Layout(width="360px"))
        self.head = widgets.Dropdown(options=heads, description="head", layout=widgets.Layout(width="200px"))
        self.progress = widgets.IntProgress(description="asking", layout=widgets.Layout(width="320px", visibility="hidden"))
        self.questions = Questions(self.studio, self._count)
        self.worker = self.questions.worker
        row = widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="14px", align_items="flex-start")
        self._tiles = {name: widgets.Box([p], layout=widgets.Layout(flex="1 1 240px", max_width=f"{width + 12}px"))
                       for name, p in self.pictures.items()}
        both = [[self._tiles[n] for n in names] for names in
                (("rgb", "depth"), ("attention rgb", "attention depth", "decoder"))]
        self.entropies = {name: RatioGrid(row_title="layer", column_title="head", max_width=260, layout=widgets.Layout(width="100%"))
                          for name in PARTS}
        self._sharpness = widgets.VBox([
            widgets.HTML(words("<b>How sharply each head looks</b>: entropy, 0 = at one patch, 1 = at all alike. A cell chooses "
                               "its layer and head.", is_html=True)),
            widgets.Box([widgets.Box([g], layout=widgets.Layout(flex="1 1 200px", max_width="260px"))
                         for g in self.entropies.values()], layout=row)])
        self.children = [widgets.Box([*both[0], self.answer], layout=row),
                         widgets.Box([self.progress, self.waiting], layout=row),
                         widgets.Box([self.layer, self.head], layout=row),
                         widgets.Box([*both[1], self.mass], layout=row), self._sharpness, self.message]
        for name, grid in self.entropies.items():
            grid.add_class("mask3d-heads")
            grid.observe(lambda _, name=name: self._choose(name), "chosen")
        for picture in self.pictures.values():
            picture.observe(lambda change: self.wish(hover=change["new"]), "hover")
            picture.observe(lambda change: self.wish(selection=tuple(change["new"])), "selection")
        self.layer.observe(lambda change: self.wish("layer", layer=change["new"]), "value")
        self.head.observe(lambda change: self.wish(head=change["new"]), "value")
        self.begin()

    @property
    def asked(self) -> int | None:
        """The patch that is asked, or None."""
        selection = self.session.state.selection
        return selection[-1] if selection else None

    def _sizes(self) -> tuple[int, list[str]]:
        """Layers of the session's model in its deepest part, and the heads to choose from."""
        sizes = attention_sizes(self.session.model()[0]).values()
        return max(layers for layers, _ in sizes), [*HEADS, *(str(k) for k in range(max(heads for _, heads in sizes)))]

    def close(self) -> None:
        """End the worker too, and take the arrows away."""
        self.studio.point(())
        self.questions.close()
        super().close()

    # ---- following --------------------------------------------------------------------------------------------------

    def follow(self, changed: frozenset[str]) -> None:
        """Move to the state; what must be computed is asked for."""
        state = self.session.state
        if "checkpoint" in changed:
            layers, heads = self._sizes()
            if list(self.layer.options) != layer_options(layers):
                self.layer.options = layer_options(layers)
                self.layer.value = -1
            if list(self.head.options) != heads:
                self.head.options = heads
        if changed & {"layer", "checkpoint"} and -len(self.layer.options) <= state.layer <= -1:
            self.layer.value = state.layer
        if changed & {"head", "checkpoint"} and state.head in self.head.options:
            self.head.value = state.head
        if changed & {"frame", "seed", "rgb_ratio", "depth_ratio", "painted_rgb", "painted_depth"}:
            for name, picture in self.pictures.items():
                self._hide(_modality(name), picture)
        for picture in self.pictures.values():
            if "hover" in changed:
                picture.hover = state.hover
            if "selection" in changed:
                picture.selection = list(state.selection)
        if changed & {"layer", "head", "checkpoint"}:
            self._ring()
        if changed & {"selection", "layer", "head"} and self.studio.shown is not None and not self.studio.is_stale:
            self._ask()

    def _hide(self, modality: str, picture: PatchImage) -> None:
        """What the state hides; its prediction comes later."""
        ranks = self.session.ranks(modality)
        count = int((ranks < NEVER).sum())
        picture.set_ranks(np.minimum(ranks, NOTHING_MEASURED), lowest="shown first")
        picture.hidden_count = count - visible_count(getattr(self.session.state, f"{modality}_ratio"), count)
        picture.painted = np.where(self.session.is_masked(modality), 1, 2).astype(np.uint8).tobytes()

    def show(self) -> None:
        """The pictures of the newest prediction; then the question is asked again."""
        shown, is_stale = self.studio.shown, self.studio.is_stale or bool(self.studio.error)
        for picture in self.pictures.values():
            picture.stale = is_stale
        if shown is None or is_stale:
            return
        r = shown.reconstruction
        limits = self.session.limits()
        depth = depth_image(r.depth, r.is_valid, limits, self.session.state.colormap)
        for name, picture in self.pictures.items():
            picture.set_picture(depth if _modality(name) == "depth" else r.color)
            say_values(picture, shown)
        self._ask()

    def evidence_texts(self) -> list[widgets.Widget]:
        """The answer, the decoder's numbers and the heads' entropies; dimmed until a new mask has been asked, too."""
        return [self.answer, self.mass, self._sharpness]

    def _ring(self) -> None:
        """Where layer and head stand in each part's entropies."""
        state = self.session.state
        for name, grid in self.entropies.items():
            rows, columns = grid.size
            row, head = rows + state.layer, int(state.head) if state.head.isdecimal() else -1
            is_there = 0 <= row < rows and 0 <= head < columns
            grid.here = (float(head), float(row)) if is_there else (-1.0, -1.0)

    def _choose(self, name: str) -> None:
        """The layer and the head of a part's cell."""
        grid = self.entropies[name]
        if grid.cell is not None:
            row, head = grid.cell
            self.wish("layer", layer=row - grid.size[0], head=str(head))

    # ---- asking -----------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Answer from what is known, or ask the worker."""
        patch = self.asked
        if patch is None:
            self.answer.value = words(HINT)
            self.mass.value = ""
            self._sharpness.layout.display = "none"
            self.studio.point(())
            self._rest()
            for picture in self.pictures.values():
                picture.set_heat(None)
                picture.arrows = []
            return
        known = self.questions.known()
        if known is not None:
            self._rest()
            return self._answer(patch, known)
        earlier = self.questions.earlier()
        if earlier is not None:
            self._answer(patch, earlier.answer, earlier.words)
        else:
            for picture in self.pictures.values():
                picture.arrows = []  # they were the old masks'
        if self.answer.value == words(HINT):
            self.answer.value = ""
        self._dim(True)  # what stands there is old
        for picture in self.pictures.values():
            picture.stale = bool(picture.heat)  # so are its colours, if it has any
        self.questions.ask(self._answered)
        self.waiting.value = words(self._waiting_words())

    def _answered(self, of: tuple, answer: Answer | None, problem: BaseException | None) -> None:
        """A question came to its end: show what is known now, and ask again where the weights are newer by now."""
        with self.following():
            self.progress.layout.visibility, self.waiting.value = "hidden", ""
            if problem is not None:
                return self.say(in_words(problem), warns=True)
            shown = self.studio.shown
            if self.asked is None or shown is None or shown.key[1:] != of[1:]:
                return
            if not self.studio.is_stale:
                self._ask()
            elif shown.key == of:  # newer weights predict just now: their prediction asks again
                self._answer(self.asked, answer)

    def _rest(self) -> None:
        """Nothing is being asked: what stands there is as new as the prediction."""
        is_old = self.studio.is_stale or bool(self.studio.error)
        self._dim(is_old)
        for picture in self.pictures.values():
            picture.stale = is_old
        self.progress.layout.visibility, self.waiting.value = "hidden", ""

    def _waiting_words(self) -> str:
        """What is being done, and how long it takes."""
        time = self.questions.time_words()
        place = "" if self.asked is None else f"Asking {patch_words(self.asked, self.session.grid)}: "
        return f"{place}taking every visible patch away once{', ' + time if time else ''} ..."

    def _count(self, done: int, total: int) -> None:
        self.progress.max, self.progress.value, self.progress.layout.visibility = total, done, "visible"
        self.waiting.value = words(self._waiting_words())

    def _answer(self, patch: int, known: Answer, mark: str = "") -> None:
        influence, attention = known
        moves = {"rgb": influence.rgb_moves[patch].numpy() * 100, "depth": influence.depth_moves[patch].numpy() * 100}
        end, arrows = largest_move(moves), arrows_of(patch, influence)
        for name, values in moves.items():
            picture = self.pictures[name]
            picture.set_heat(values, style.ERROR_COLORMAP, (-end, end))
            picture.set_bar(style.ERROR_COLORMAP, (-end, end), "cm")
            say_values(picture, self.studio.shown, {TAKEN: Extra(values, "cm", 2, is_signed=True)})
            picture.arrows = picture_arrows(arrows, name)
        self.studio.point(arrows)
        self.answer.value = answer_html(patch, self.session.grid, influence, mark=mark)
        self._show_attention(patch, attention, moves)

    def _show_attention(self, patch: int, attention: ModelAttention, moves: dict[str, np.ndarray]) -> None:
        layer, chosen = self.session.state.layer, self.session.state.head
        head, problems = int(chosen) if chosen.isdecimal() else chosen, []
        self._show_entropies(attention)
        for name in ("rgb", "depth"):
            picture, encoder = self.pictures[f"attention {name}"], getattr(attention, name)
            try:
                if encoder is None:
                    raise ConfigError(f"no {name} patch is visible")
                if not (encoder.ids == patch).any():
                    raise ConfigError("hidden here: it asks nothing")
                _check_layer(layer, len(encoder.layers))
                values, prefix = encoder.of(patch, layer, head)
                self._heat(picture, values.numpy())
                picture.note = row_words(values, prefix, encoder)
            except ConfigError as problem:
                picture.set_heat(None)
                say_values(picture, self.studio.shown)
                picture.note = "; ".join(problem.problems)
                problems.append(picture.note)
        picture = self.pictures["decoder"]
        try:
            _check_layer(layer, len(attention.decoder))
            rows, mass = attention.decoder_of(patch, layer, head), attention.decoder_mass(patch, layer, head)
            tokens = attention.token_mass(patch, layer, head)
            picture.note = ""
        except ConfigError as problem:
            picture.set_heat(None)
            say_values(picture, self.studio.shown)
            picture.note = "; ".join(problem.problems)
            self.mass.value = words(f"Nothing to show of the decoder: {picture.note}.")
            if len(problems) == 2:  # no part has it
                self.say(picture.note, warns=True)
            return
        total = np.nansum(np.stack([row.numpy() for row in rows.values()]), axis=0)
        self._heat(picture, total)
        felt = sum(np.nan_to_num(np.abs(m)) for m in moves.values())
        visible = np.isfinite(moves["rgb"]) | np.isfinite(moves["depth"])
        agreement = rank_correlation(felt[visible], total[visible])
        which = head_words(chosen)
        if head != "rollout":
            which = f"{layer_words(layer, len(attention.decoder))}, {which}"
        self.mass.value = words(
            f"<b>Where the decoder looks</b> ({which}){mass_html(mass, tokens)}"
            f"Rank correlation of attention with influence over visible patches: <b>{agreement:+.2f}</b>.<br>"
            f"<span style='opacity:.75'>{NOT_ATTRIBUTION}</span>", is_html=True)

    def _show_entropies(self, attention: ModelAttention) -> None:
        """All heads of all parts; nothing for an encoder that saw nothing."""
        found = attention.entropies()
        for name, grid in self.entropies.items():
            grid.layout.display = None if name in found else "none"
            if name in found:
                grid.draw(entropy_view(name, found[name]))
        self._sharpness.layout.display = None
        self._ring()

    def _heat(self, picture: PatchImage, values: np.ndarray) -> None:
        """Attention over a picture, 0..1."""
        top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
        picture.set_heat(values, "viridis", (0.0, top or 1.0))
        picture.set_bar("viridis", (0.0, 100 * (top or 1.0)), "%")
        say_values(picture, self.studio.shown, {LOOKED: Extra(values * 100, "%", 1)})

    def still(self, theme: str = "light") -> np.ndarray:
        """Influence with the answer beside it, attention under them."""
        width = (STILL_WIDTH - 48) // 3
        cells = {name: self._cell(picture, width, theme) for name, picture in self.pictures.items()}
        cells["answer"] = text_block("\n".join([self.sentence(), "", *self._movers(5)]), width, 17, theme=theme)
        rows = [("rgb", "depth", "answer"), ("attention rgb", "attention depth", "decoder")]
        tall = [max(cells[name].shape[0] for name in row) for row in rows]
        sheet = blank((sum(tall) + 36, STILL_WIDTH), theme)
        for place, row in enumerate(rows):
            for column, name in enumerate(row):
                paste(sheet, cells[name], 12 + place * (tall[0] + 12), 12 + column * (width + 12))
        return sheet

    def _cell(self, picture: PatchImage, width: int, theme: str) -> np.ndarray:
        """A picture under its label, its note below."""
        drawn = picture.still(width, theme, has_heading=False)[:, :width]
        heading = text_block(picture.label, width, 17, bold=True, theme=theme)
        note = text_block(picture.note, width, 15, role="muted", theme=theme)
        cell = blank((heading.shape[0] + drawn.shape[0] + note.shape[0] + 10, width), theme)
        for part, top in ((heading, 0), (drawn, heading.shape[0] + 5), (note, heading.shape[0] + drawn.shape[0] + 10)):
            paste(cell, part, top, 0)
        return cell

    def _movers(self, count: int) -> list[str]:
        """The patches that move the asked one most, a line each."""
        patch, known = self.asked, self.questions.known()
        if patch is None or known is None:
            return []
        top, others = movers(patch, known[0], count)
        lines = [f"{source_words(name)}, {patch_words(k, self.session.grid)}: {move_words(moved)}" for name, k, moved in top]
        return ["Taken away, these move it most:", *lines, *([others] if others else []), "", NOT_ATTRIBUTION]

    def panels(self) -> list[widgets.Widget]:
        """A tile per picture, and the heads' entropies."""
        return [*self._tiles.values(), self._sharpness]

    def projected(self) -> list[widgets.Widget]:
        """The influence of colour and of depth."""
        return [self._tiles["rgb"], self._tiles["depth"]]

    def table(self) -> list[dict]:
        """Each patch's influence on the asked one, in centimetres; empty where it was hidden. Rows and columns from 1."""
        patch, known = self.asked, self.questions.known()
        if patch is None or known is None:
            raise ConfigError("no patch was asked yet: click one first")
        influence, columns = known[0], self.session.grid[1]
        moves = {"rgb": influence.rgb_moves[patch].numpy(), "depth": influence.depth_moves[patch].numpy()}
        plain = lambda value: "" if np.isnan(value) else round(100 * float(value), 3)  # noqa: E731
        place = {"asked_row": patch // columns + 1, "asked_column": patch % columns + 1}
        return [{**place, "row": k // columns + 1, "column": k % columns + 1,
                 "rgb_taken_away_cm": plain(moves["rgb"][k]), "depth_taken_away_cm": plain(moves["depth"][k])}
                for k in range(len(moves["rgb"]))]

    def sentence(self) -> str:
        """The answer in one sentence."""
        patch, known = self.asked, self.questions.known()
        if patch is None or known is None:
            return "No patch was asked yet."
        shares, place = known[0].shares(patch), patch_words(patch, self.session.grid)
        return f"{place[:1].upper()}{place[1:]}: {shares['depth']:.0%} from depth, {shares['rgb']:.0%} from colour."


def _modality(name: str) -> str:
    """Whose patches a picture has: the decoder answers for depth."""
    return "rgb" if "rgb" in name else "depth"


def _check_layer(layer: int, layers: int) -> None:
    """Refuse a layer that a shallower part has not.

    Raises:
        ConfigError: it has fewer.
    """
    if not -layers <= layer < layers:
        raise ConfigError(f"it has only {layers} layers: none stands {-layer - 1} before the last")


def explore_attention(session: Session, present: bool = False, **options) -> AttentionExplorer:
    """Ask a patch what its depth comes from; see :class:`AttentionExplorer`."""
    return opened(AttentionExplorer(session, **options), present)


__all__ = ["AttentionExplorer", "explore_attention", "row_words"]
