"""Ask this patch: what moves its depth when it is taken away (influence), and where the network looks (attention)."""

from __future__ import annotations

from html import escape

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor

from mask3d_core.attention import EncoderAttention, ModelAttention, attention_sizes, entropy
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.influence import Influence
from mask3d_core.evaluation.uncertainty import rank_correlation
from mask3d_core.masking import NEVER, visible_count
from mask3d_viz import style
from mask3d_viz.drawing import blank, number, paste, text_block
from mask3d_viz.explorers.base import STILL_WIDTH, Explorer, opened
from mask3d_viz.explorers.questions import Questions, answer_html, arrows_of, largest_move, picture_arrows, words
from mask3d_viz.images import depth_image
from mask3d_viz.session import Session
from mask3d_viz.widgets.patch_image import NOTHING_MEASURED, PatchImage

HEADS = ("mean", "max", "rollout")
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
        self.answer, self.mass = widgets.HTML(), widgets.HTML()
        layers, heads = self._sizes()
        self.layer = widgets.IntSlider(min=-layers, max=-1, value=-1, description="layer", continuous_update=False,
                                       layout=widgets.Layout(width="320px"))
        self.head = widgets.Dropdown(options=heads, description="head", layout=widgets.Layout(width="200px"))
        self.progress = widgets.IntProgress(description="asking", layout=widgets.Layout(width="320px", visibility="hidden"))
        self.questions = Questions(self.studio, self._count)
        self.worker = self.questions.worker
        row = widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="14px", align_items="flex-start")
        self._tiles = {name: widgets.Box([p], layout=widgets.Layout(flex="1 1 240px", max_width=f"{width + 12}px"))
                       for name, p in self.pictures.items()}
        both = [[self._tiles[n] for n in names] for names in
                (("rgb", "depth"), ("attention rgb", "attention depth", "decoder"))]
        self.children = [widgets.Box([*both[0], self.answer], layout=row), self.progress,
                         widgets.Box([self.layer, self.head], layout=row),
                         widgets.Box([*both[1], self.mass], layout=row), self.message]
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
            self.layer.min = -layers
            if list(self.head.options) != heads:
                self.head.options = heads
        if changed & {"layer", "checkpoint"} and self.layer.min <= state.layer <= -1:
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
        self._ask()

    # ---- asking -----------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Answer from what is known, or ask the worker."""
        patch = self.asked
        if patch is None:
            self.answer.value = words("Click a patch, in any picture or cloud: what does its depth come from?")
            self.mass.value = ""
            self.studio.point(())
            for picture in self.pictures.values():
                picture.set_heat(None)
                picture.arrows = []
            return
        if self.questions.known() is not None:
            return self._answer(patch)
        self.answer.value = words(f"Asking patch {patch}: taking every visible patch away once ...")

        def done(of: tuple, answer: tuple[Influence, ModelAttention] | None, problem: BaseException | None) -> None:
            self.progress.layout.visibility = "hidden"
            if problem is not None:
                return self.say(str(problem), warns=True)
            if self.studio.shown is not None and self.studio.shown.key == of and self.asked is not None:
                self._answer(self.asked)

        self.questions.ask(done)

    def _count(self, done: int, total: int) -> None:
        self.progress.max, self.progress.value, self.progress.layout.visibility = total, done, "visible"

    def _answer(self, patch: int) -> None:
        influence, attention = self.questions.known()
        moves = {"rgb": influence.rgb_moves[patch].numpy() * 100, "depth": influence.depth_moves[patch].numpy() * 100}
        end, arrows = largest_move(moves), arrows_of(patch, influence)
        for name, values in moves.items():
            picture = self.pictures[name]
            picture.set_heat(values, style.ERROR_COLORMAP, (-end, end))
            picture.set_bar(style.ERROR_COLORMAP, (-end, end), "cm")
            picture.set_values({"taken away, it moves by": values}, {"taken away, it moves by": "cm"}, digits={
                "taken away, it moves by": 2}, signed=("taken away, it moves by",))
            picture.arrows = picture_arrows(arrows, name)
        self.studio.point(arrows)
        self.answer.value = answer_html(patch, self.session.grid, influence)
        self._show_attention(patch, attention, moves)

    def _show_attention(self, patch: int, attention: ModelAttention, moves: dict[str, np.ndarray]) -> None:
        layer, head = self.session.state.layer, self.session.state.head
        head = int(head) if head.isdecimal() else head
        problems = []
        for name in ("rgb", "depth"):
            picture, encoder = self.pictures[f"attention {name}"], getattr(attention, name)
            try:
                if encoder is None:
                    raise ConfigError(f"no {name} patch is visible")
                if not (encoder.ids == patch).any():
                    raise ConfigError("hidden here: it asks nothing")
                values, prefix = encoder.of(patch, layer, head)
                _heat(picture, values.numpy())
                picture.note = row_words(values, prefix, encoder)
            except ConfigError as problem:
                picture.set_heat(None)
                picture.note = "; ".join(problem.problems)
                problems.append(picture.note)
        picture = self.pictures["decoder"]
        try:
            rows, mass = attention.decoder_of(patch, layer, head), attention.decoder_mass(patch, layer, head)
            picture.note = ""
        except ConfigError as problem:
            picture.set_heat(None)
            picture.note = "; ".join(problem.problems)
            self.mass.value = words(f"Nothing to show of the decoder: {picture.note}.")
            if len(problems) == 2:  # no part has it
                self.say(picture.note, warns=True)
            return
        total = np.nansum(np.stack([row.numpy() for row in rows.values()]), axis=0)
        _heat(picture, total)
        felt = sum(np.nan_to_num(np.abs(m)) for m in moves.values())
        visible = np.isfinite(moves["rgb"]) | np.isfinite(moves["depth"])
        agreement = rank_correlation(felt[visible], total[visible])
        bars = "".join(f"<tr><td style='padding-right:12px'>{escape(name)} known there</td><td>{value:.0%}</td></tr>"
                       for name, value in mass.items())
        self.mass.value = words(
            f"<b>Where the decoder looks</b> (layer {layer}, head {head})<table>{bars}</table>"
            f"Rank correlation of attention with influence over visible patches: <b>{agreement:+.2f}</b>.<br>"
            f"<span style='opacity:.75'>{NOT_ATTRIBUTION}</span>", is_html=True)

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
        columns = self.session.grid[1]
        lines = [f"{'RGB' if name == 'rgb' else 'depth'}, row {k // columns + 1}, column {k % columns + 1}: "
                 f"{'+' if moved > 0 else ''}{number(100 * moved, 1)} cm" for name, k, moved in known[0].top(patch, count)]
        return ["Taken away, these move it most:", *lines, "", NOT_ATTRIBUTION]

    def panels(self) -> list[widgets.Widget]:
        """A tile per picture."""
        return list(self._tiles.values())

    def projected(self) -> list[widgets.Widget]:
        """The influence of colour and of depth."""
        return [self._tiles["rgb"], self._tiles["depth"]]

    def table(self) -> list[dict]:
        """Each patch's influence on the asked one, in centimetres; empty where it was hidden."""
        patch, known = self.asked, self.questions.known()
        if patch is None or known is None:
            raise ConfigError("no patch was asked yet: click one first")
        influence, columns = known[0], self.session.grid[1]
        moves = {"rgb": influence.rgb_moves[patch].numpy(), "depth": influence.depth_moves[patch].numpy()}
        plain = lambda value: "" if np.isnan(value) else round(100 * float(value), 3)  # noqa: E731
        return [{"asked": patch, "row": k // columns + 1, "column": k % columns + 1,
                 "rgb_taken_away_cm": plain(moves["rgb"][k]), "depth_taken_away_cm": plain(moves["depth"][k])}
                for k in range(len(moves["rgb"]))]

    def sentence(self) -> str:
        """The answer in one sentence."""
        patch, known = self.asked, self.questions.known()
        if patch is None or known is None:
            return "No patch was asked yet."
        shares = known[0].shares(patch)
        return f"Patch {patch}: {shares['depth']:.0%} from depth, {shares['rgb']:.0%} from colour."


def _modality(name: str) -> str:
    """Whose patches a picture has: the decoder answers for depth."""
    return "rgb" if "rgb" in name else "depth"


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


def _heat(picture: PatchImage, values: np.ndarray) -> None:
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    picture.set_heat(values, "viridis", (0.0, top or 1.0))
    picture.set_bar("viridis", (0.0, 100 * (top or 1.0)), "%")
    picture.set_values({"attention": values * 100}, {"attention": "%"}, digits={"attention": 1})


def explore_attention(session: Session, present: bool = False, **options) -> AttentionExplorer:
    """Ask a patch what its depth comes from; see :class:`AttentionExplorer`."""
    return opened(AttentionExplorer(session, **options), present)


__all__ = ["AttentionExplorer", "explore_attention", "row_words"]
