"""The living page: one HTML file in which the two sliders, the clouds and the patch clicks work without Python.

``report(session, path)`` computes a ladder of masks for a few frames, packs the predictions, and puts them with the
widgets' own front ends into one file that is opened from disk. It asks nothing of a network, and may not: a content
security policy in its head forbids every request.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import mask3d_core
from mask3d_core.errors import ConfigError
from mask3d_core.progress import Bar
from mask3d_viz import style
from mask3d_viz.clouds import provenance
from mask3d_viz.depth_clouds import MODES, SAME_PIXELS
from mask3d_viz.ratio_view import OPPONENT_WORDS
from mask3d_viz.ladder import COST, Climber, Ladder, LadderFrame, silent_copy
from mask3d_viz.packing import pack
from mask3d_viz.pixels import hatching, to_png, write_whole
from mask3d_viz.reconstruction import cloud_stills, panel
from mask3d_viz.html_page import facts, figure
from mask3d_viz.session import Session
from mask3d_viz.widgets.patch_image import PatchImage
from mask3d_viz.widgets.point_cloud import PALETTES, PointCloud, frame_points

MAX_BYTES = 10_000_000
MORE_FRAMES = 2  # beside the session's own, where they fit
NOT_TRAITS = {"layout", "tooltip", "tabbable"}  # a notebook's affair
POINT_ARRAYS = ("positions", "pixel", "color", "kind", "values", "edge")
TITLE = "How much can be hidden?"


def report(session: Session, path: str | Path, frames: Sequence[int] | None = None,
           rgb_ratios: Sequence[float] | None = None, depth_ratios: Sequence[float] | None = None, title: str = TITLE, *,
           influence: Sequence[tuple[float, float]] | None = None, date: str = "", max_bytes: int = MAX_BYTES,
           show_progress: bool = True) -> Path:
    """Write a session as one HTML page that moves without Python.

    The page has the session's seed, painted patches, checkpoint, colour source, depth range, selection and camera. The
    session itself is not changed.

    Args:
        session: what is shown.
        path: the HTML file to write.
        frames: numbers of frames; None: the session's own, and up to two more where they fit.
        rgb_ratios, depth_ratios: the sliders' rungs, shares hidden, 0..1; None: the usual ones and the session's own.
        title: of the page.
        influence: pairs of ratios at which it is measured what each patch owes to the others (some seconds each); None:
            at the session's ratios and at the two next depth ratios; () for none.
        date: printed on the page as given; "": none.
        max_bytes: of the file.
        show_progress: a bar with rate and time left. Stopping (Ctrl-C, or the notebook's square) writes nothing.

    Returns:
        The path written.

    Raises:
        ConfigError: a model that predicts no depth, frames or ratios that do not exist, nothing visible where the page
            begins, or a page that would be larger than ``max_bytes``; it says what to reduce.
    """
    if "depth" not in session.model()[0].config.targets:
        raise ConfigError(f"a page needs a model that predicts depth; {session.state.checkpoint} does not (model.targets)")
    ladder = Ladder.of(session, rgb_ratios, depth_ratios, influence)
    chosen, needed = _frames(session, frames)
    climber, climbed, size = Climber(silent_copy(session), ladder), [], 0
    with Bar("living page", len(chosen) * (len(ladder.places) + COST * len(ladder.asked)), unit="prediction",
             show=show_progress) as bar:
        for place, number in enumerate(chosen):
            bar.note(f"frame {place + 1} of {len(chosen)}")
            climbed.append(climber.climb(number, bar.advance))
            size += len(json.dumps(climbed[-1].data))
            if size > max_bytes and len(climbed) > needed:
                break
        content = page_html(session, ladder, climbed, title, date).encode()
        while len(content) > max_bytes and len(climbed) > needed:  # the last ones were only asked for if they fit
            climbed.pop()
            content = page_html(session, ladder, climbed, title, date).encode()
        if len(content) > max_bytes:
            raise ConfigError(_too_large(len(content), max_bytes, ladder, len(climbed)))
        bar.say(f"{path}: {len(content) / 1e6:.1f} MB, {len(climbed)} frame(s), {len(ladder.rgb)} x {len(ladder.depth)} "
                f"ratios, depth rounded by at most {1000 * max(c.off_by for c in climbed):.2f} mm")
    return write_whole(path, content)


def _frames(session: Session, frames: Sequence[int] | None) -> tuple[list[int], int]:
    """The frames' numbers, and how many of them must fit."""
    count = len(session.frames)
    if frames is None:
        own, spread = session.state.frame, max(1, count // (MORE_FRAMES + 1))
        others = [(own + k * spread) % count for k in range(1, MORE_FRAMES + 1)]
        return list(dict.fromkeys([own, *others])), 1
    chosen = list(dict.fromkeys(int(number) for number in frames))
    wrong = [number for number in chosen if not 0 <= number < count]
    if wrong or not chosen:
        raise ConfigError(f"frames must be some of 0..{count - 1}; got {list(frames)}")
    return chosen, len(chosen)


def _too_large(size: int, limit: int, ladder: Ladder, frames: int) -> str:
    fewer = f"frames= (now {frames}) or " if frames > 1 else ""
    return (f"the page would have {size / 1e6:.1f} MB, more than {limit / 1e6:.1f} MB; give fewer {fewer}rungs in "
            f"rgb_ratios= (now {len(ladder.rgb)}) and depth_ratios= (now {len(ladder.depth)})")


def page_html(session: Session, ladder: Ladder, frames: list[LadderFrame], title: str = TITLE, date: str = "") -> str:
    """The whole page. The same parts give the same bytes.

    Args:
        session: whose state is shown.
        ladder: the sliders' ratios. frames: climbed on it, the first one is shown first.
        title, date: as in :func:`report`.
    """
    package = files("mask3d_viz")
    read = lambda name: package.joinpath(name).read_text(encoding="utf-8")  # noqa: E731
    styles = "\n".join((page_theme(), *(read(f"widgets/{name}.css") for name in ("patch_image", "point_cloud")),
                        read("living_page.css")))
    parts = {"TITLE": html.escape(title), "STYLE": styles, "STILL": _still(frames[0], session.state.colormap),
             "TRIES": _tries(ladder, frames[0]), "FACTS": facts(_facts(session, ladder, frames, date)),
             "DATA": json.dumps(page_data(session, ladder, frames), ensure_ascii=False, allow_nan=False,
                                separators=(",", ":")).replace("</", "<\\/"),
             "SCRIPT": page_script()}
    return re.sub(r"@([A-Z]+)@", lambda found: parts[found[1]], read("living_page.html"))


def page_theme() -> str:
    """Both themes as CSS variables: the system's choice, the switch's, and light on paper."""
    def block(name: str) -> str:
        return f"color-scheme:{name};" + "".join(f"--{role}:{value};" for role, value in style.THEMES[name].items())

    return (f":root{{{block('light')}}}"
            f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme]){{{block('dark')}}}}}"
            f"@media screen{{:root[data-theme=dark]{{{block('dark')}}}}}")


def page_script() -> str:
    """The page's program: the widgets' modules as expressions, then what moves them."""
    read = lambda name: files("mask3d_viz").joinpath(name).read_text(encoding="utf-8")  # noqa: E731
    return "\n".join((f"const {{ PageModel }} = {as_expression(read('widgets/page_model.js'))};",
                      f"const PatchImage = {as_expression(read('widgets/patch_image.js'))};",
                      f"const PointCloud = {as_expression(read('widgets/point_cloud.js'))};",
                      read("living_page_data.js"), read("living_page.js"))).replace("</script", "<\\/script")


def as_expression(module: str) -> str:
    """A JavaScript module as an expression, since a page opened from disk may import nothing.

    Args:
        module: its text, without imports; either one default export or exported classes.

    Returns:
        A call whose value is the default export, or an object of the exported classes.

    Raises:
        ConfigError: it imports something, or exports in another way.
    """
    names = re.findall(r"^export class (\w+)", module, re.M)
    whole, count = re.subn(r"^export default ", "return ", module, flags=re.M)
    whole = re.sub(r"^export class ", "class ", whole, flags=re.M)
    if re.search(r"^\s*(import|export)\b", whole, re.M) or count + bool(names) != 1:
        raise ConfigError("a front end for the living page must import nothing and export one default or some classes")
    end = f"return {{ {', '.join(names)} }};\n" if names else ""
    return f"(() => {{\n{whole}\n{end}}})()"


def page_data(session: Session, ladder: Ladder, frames: list[LadderFrame]) -> dict[str, Any]:
    """What ``living_page.js`` reads, JSON values."""
    state, size = session.state, session.model()[0].config.image_size
    clouds = [_cloud(session, frame) for frame in frames]
    packed = [{**frame.data, "views": cloud.views} for frame, cloud in zip(frames, clouds)]
    picture = PatchImage.of(np.zeros((*size, 3), np.uint8), session.patch, max_width=900)
    return {"size": list(size), "patch": session.patch, "selection": list(state.selection),
            "ladder": {"rgb": ladder.rgb, "depth": ladder.depth, "start": ladder.start}, "opponents": OPPONENT_WORDS,
            "arrow_colors": style.MODALITY_COLORS, "palettes": {"depth": _base64(style.colormap(state.colormap).tobytes()),
                         "error": _base64(style.colormap(style.ERROR_COLORMAP).tobytes())},
            "hole": pack(np.moveaxis(hatching(size, style.HOLE_COLORS), -1, 0)),
            "guessed": pack(np.moveaxis(hatching(size, style.GUESSED_COLORS), -1, 0)), "guessed_share": style.GUESSED_SHARE,
            "picture": _traits(picture, "pixels"), "frames": packed,
            "cloud": _traits(clouds[0], *(f"{name}_{k}" for name in POINT_ARRAYS for k in "01"))}


def _cloud(session: Session, frame: LadderFrame) -> PointCloud:
    """The notebook's cloud of a frame, for its views, camera and colours; the page fills in the points itself."""
    state, r = session.state, frame.shown.reconstruction
    end = 1000 * frame.data["error_end"]
    cloud = PointCloud(
        panes=["truth", "prediction"], size=r.depth.shape, patch=session.patch, label="Both rooms in space", height=480,
        edge_note=SAME_PIXELS, view=state.view, edge_limit=state.edge_limit, channels=[
            {"name": "depth", "unit": "m", "digits": 2, "palette": PALETTES.index(state.colormap),
             "range": frame.data["limits"]},
            {"name": "error", "unit": "mm", "digits": 0, "palette": PALETTES.index(style.ERROR_COLORMAP),
             "range": [-end, end], "is_diverging": True}])
    cloud.mode = MODES[state.color_mode]
    camera = Climber.camera(frame.shown)
    where = provenance(r.is_valid, r.is_masked_depth)
    cloud.set_pane(0, **frame_points(r.depth, camera, is_valid=r.is_valid, kind=where), intrinsics=camera)
    if not r.is_valid.any():  # the views fit what there is
        cloud.set_pane(1, **frame_points(r.prediction, camera), intrinsics=camera)
    if state.camera is not None:
        cloud.camera, cloud.view = state.camera, ""
    return cloud


def _traits(widget: Any, *without: str) -> dict[str, Any]:
    """A widget's traits as the page has them: bytes as {"base64": ...}; large ones that the page makes are empty."""
    found = {}
    for name, value in widget.get_state().items():
        if name.startswith("_") or name in NOT_TRAITS:
            continue
        value = b"" if name in without else value
        found[name] = {"base64": _base64(value)} if isinstance(value, (bytes, memoryview)) else value
    return found


def _base64(content: bytes) -> str:
    return base64.b64encode(bytes(content)).decode()


def _still(frame: LadderFrame, colormap: str) -> str:
    """What is shown where no script runs: panel, clouds, numbers."""
    r, limits = frame.shown.reconstruction, tuple(frame.data["limits"])
    words = f"{r.ratios[0]:.0%} of the colour patches and {r.ratios[1]:.0%} of the depth patches are hidden."
    pictures = to_png(panel(r, width=1400, limits=limits, colormap=colormap))
    return (figure(pictures, "Colour seen, depth seen, prediction, truth and error", words)
            + figure(to_png(cloud_stills(r, mode="provenance", size=(360, 560))), "Truth and prediction as point clouds",
                     "Truth and prediction in space, coloured by where each point comes from."))


TRIES = (
    ((0.0, 1.0), "Colour alone", "Hide all depth and show all colour. What of the room's shape is left, and how would the "
                 "network know how large the room is?"),
    ((1.0, 0.8), "Depth alone", "Now hide all colour and keep some depth. Does the error grow? What is lost at the edges of "
                 "things?"),
    ((0.5, 0.98), "Hardly any depth", "Hide nearly all depth. Before you look: who is better off with so few patches, the "
                  "network or plain interpolation?"),
)


def _tries(ladder: Ladder, frame: LadderFrame) -> str:
    """Things to try, for those that the ladder has."""
    items = ""
    for (rgb, depth), name, words in TRIES:
        if rgb in ladder.rgb and depth in ladder.depth:
            i, j = ladder.rgb.index(rgb), ladder.depth.index(depth)
            if frame.data["cells"][i][j] is not None:
                items += (f'<li><p><b>{name}.</b> {words}</p><button type="button" class="plain" value="{i} {j}">colour '
                          f"{rgb:.0%}, depth {depth:.0%}</button></li>")
    return f'<ul id="tries" aria-label="Things to try">{items}</ul>'


def _facts(session: Session, ladder: Ladder, frames: list[LadderFrame], date: str) -> dict[str, str]:
    """Checkpoint, frames, masks, rounding, who made it."""
    state, record = session.state, session.model()[1]
    trained = ", trained for {} steps".format(f"{record['step']:,}".replace(",", "\u202f")) if record.get("step") else ""
    painted = len(state.painted_rgb) + len(state.painted_depth)
    shown = lambda ratios: ", ".join(f"{ratio:.4g}" for ratio in ratios)  # noqa: E731
    off_by = 1000 * max(frame.off_by for frame in frames)
    made = {"checkpoint": f"{state.checkpoint}{trained}",
            "frames": ", ".join(frame.data["name"] for frame in frames),
            "picture": "{} x {} pixels".format(*frames[0].shown.reconstruction.depth.shape)
                       + f" in patches of {session.patch} x {session.patch}",
            "masks": f"seed {state.seed}, nested: sliding only adds or takes away"
                     + (f"; {painted} patches painted by hand stay as painted" if painted else ""),
            "shares hidden": f"colour {shown(ladder.rgb)}; depth {shown(ladder.depth)}",
            "predictions": f"computed beforehand for every pair, depth rounded by at most {off_by:.2f} mm; the scores were "
                           "measured before rounding"}
    if state.compare:
        made["checkpoint B"] = f"{state.compare}, left out: the page shows one checkpoint"
    if state.color_source != "own":
        made["colour"] = f"not its own: {state.color_source}"
    if date:
        made["date"] = date
    return {**made, "made by": f"mask3d-lab {mask3d_core.__version__}, report(session)"}


__all__ = ["MAX_BYTES", "as_expression", "page_data", "page_html", "report"]
