"""The demo's page: pictures first, then the curve, the numbers, the frames, and how it was made."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import mask3d_core
from mask3d_core.evaluation.evaluate import MODEL
from mask3d_core.training.log import read_log
from mask3d_viz import html_page
from mask3d_viz.curves import bar_table, figure_image, loss_curve
from mask3d_viz.images import contact_sheet
from mask3d_viz.ratio_view import OPPONENT_WORDS
from mask3d_viz.reconstruction import cloud_stills, panel
from mask3d_viz.scores import as_score

if TYPE_CHECKING:
    from mask3d_viz.demo import DemoResults

LEAD = ("Most patches of a colour image and of its depth image are hidden; the network rebuilds the whole depth map. "
        "Everything on this page was made by one command on this machine.")


def write_page(path: Path, results: DemoResults) -> Path:
    """Write the page; returns its path."""
    page = html_page.Page("Mask3D: a demo", LEAD, "Made by mask3d-lab " + mask3d_core.__version__)
    _pictures(page, results)
    _learning(page, results)
    _scores(page, results)
    _frames(page, results)
    _facts(page, results)
    return page.write(path)


def _pictures(page: html_page.Page, results: DemoResults) -> None:
    page.section("What it sees, and what it makes of it")
    page.add(html_page.text("80 % of the colour patches and 80 % of the depth patches are hidden. These frames were in "
                         "nobody's training data. Choose a model; the masks stay the same."))
    names = ["shipped", "shipped, continued", "from scratch"]
    for i in range(len(results.reconstructions["shipped"])):
        pictures = {}
        for name in names:
            one = results.reconstructions[name][i]
            words = ", ".join(f"{k} {v:.3f}" for k, v in one.scores.items() if k in ("abs_rel", "delta1"))
            pictures[name] = html_page.figure(panel(one), f"RGB seen, depth seen, prediction, truth and error; {name}: {words}",
                                           f"{one.name}, {name}. Raw prediction, nothing pasted.",
                                           dark=panel(one, theme="dark"))
        page.add(html_page.choices(pictures, f"panel-{i}"))
        one = results.reconstructions["shipped, continued"][i]
        stills = {mode: html_page.figure(cloud_stills(one, mode=mode, view=view),
                                         f"Truth and predicted cloud from one viewpoint, coloured by {mode}", words,
                                         dark=cloud_stills(one, mode=mode, view=view, theme="dark"))
                  for mode, view, words in (
                      ("rgb", "three-quarter", "The same frame as a cloud, seen from the side: truth and prediction in "
                       "metres under one camera."),
                      ("provenance", "three-quarter", "Where each point comes from: seen, hidden and predicted, or never "
                       "measured."))}
        page.add(html_page.choices(stills, f"cloud-{i}"))


def _learning(page: html_page.Page, results: DemoResults) -> None:
    page.section("It learns")
    block = results.scores["shipped, continued"]["results"][0]["scores"]
    log = [{"step": r["step"], **r["eval"]} for r in read_log(results.runs["scratch"] / "log.jsonl") if "eval" in r]
    lines = {"mean of the visible": log[0]["abs_rel_of_the_mean"]} if log and "abs_rel_of_the_mean" in log[0] else {}
    charts = {}
    for theme in ("light", "dark"):
        charts[theme] = figure_image(loss_curve(log, {"abs_rel": "from scratch"}, opponents=lines, y_label="AbsRel",
                                                title="Error on validation frames while training", theme=theme))
    page.add(html_page.text("A tiny Mask3D that starts from random weights. Falling below the dashed line means that it does "
                         "better than answering every question with the mean of the depth it sees."),
             html_page.figure(charts["light"], "Error falling with training steps", dark=charts["dark"]))
    final = results.scores["from scratch"]["results"][0]["scores"][MODEL]["abs_rel"]["mean"]
    if "mean" in block:
        mean = block["mean"]["abs_rel"]["mean"]
        words = "below" if final < mean else "NOT below"
        page.add(html_page.note(f"On the test frames it ends at AbsRel {final:.3f}, {words} the mean's {mean:.3f}.",
                             warns=final >= mean))


def _scores(page: html_page.Page, results: DemoResults) -> None:
    page.section("Measured beside trivial opponents")
    whole = results.scores["shipped, continued"]
    page.add(html_page.text(f"{whole['protocol'][:1].upper()}{whole['protocol'][1:]}."))
    words = OPPONENT_WORDS
    for k, block in enumerate(whole["results"]):
        rows, bars, ours = [], {}, []
        for name in ("from scratch", "shipped", "shipped, continued"):
            other = results.scores[name]["results"]
            if k < len(other):
                ours.append(f"Mask3D, {name}")
                rows.append(_row(ours[-1], other[k]["scores"][MODEL]))
        for name, values in block["scores"].items():
            if name != MODEL:
                rows.append(_row(words.get(name, name), values))
        bars = {row[0]: row[1] for row in rows}
        ratio = f"{block['ratios'][0]:.0%} of colour and {block['ratios'][1]:.0%} of depth hidden"
        page.add(html_page.heading(ratio), html_page.table(
            ["", "AbsRel", "RMSE m", "MAE m", "delta1"], rows,
            best={"AbsRel": "min", "RMSE m": "min", "MAE m": "min", "delta1": "max"}, ours=ours))
        if k == 0:
            chart = {t: figure_image(bar_table(bars, highlight=ours, title=ratio, log_scale=True, theme=t))
                     for t in ("light", "dark")}
            page.add(html_page.figure(chart["light"], "AbsRel of each predictor with its interval", dark=chart["dark"]))
        verdict = block["beats_every_opponent"]
        losing = [words.get(n, n) for n, won in block["beats"].items() if won is False]
        if verdict:
            page.add(html_page.note("The continued checkpoint beats every opponent (paired 95 % interval excludes 0)."))
        elif losing:
            beaten_by = ", ".join(f"the {name}" for name in losing)
            page.add(html_page.note(f"The continued checkpoint does not beat {beaten_by} here.", warns=True))
    page.add(html_page.raw_json("All numbers as JSON", results.scores))


def _row(name: str, values: dict[str, Any]) -> list[Any]:
    return [name, *[as_score(values[m]) for m in ("abs_rel", "rmse", "mae", "delta1")]]


def _frames(page: html_page.Page, results: DemoResults) -> None:
    page.section("The frames")
    train, test = results.train.header, results.test.header
    indices = results.train.indices("train")
    shown = [results.train.read(int(i)).color for i in indices[:: max(1, len(indices) // 8)][:8]]
    same_room = test.split_kind.startswith("time")
    light, dark = (contact_sheet(shown, [""] * len(shown), 4, cell_width=320, theme=theme) for theme in ("light", "dark"))
    page.add(html_page.figure(light, "Eight of the training frames", "Some of the frames that were trained on.", dark=dark))
    words = f"{len(indices)} training frames; {len(results.test.indices(results.test_split))} test frames: {test.split_rule}."
    page.add(html_page.text(words))
    if same_room:
        page.add(html_page.note("One recording: training and test frames show the same room at different times. The numbers "
                             "say how well it knows this room, and carry no interval over scenes.", warns=True))
    page.add(html_page.facts({"source": results.frames, "measured pixels": f"{test.valid_share:.1%}",
                           "size in the store": f"{train.height} x {train.width}"}))


def _facts(page: html_page.Page, results: DemoResults) -> None:
    page.section("How this was made")
    page.add(html_page.facts({
        "command": "mask3d demo" + ("" if results.frames == "rendered rooms" else f" --frames {Path(results.frames).name}"),
        "version": mask3d_core.__version__, "torch": torch.__version__,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "time": ", ".join(f"{k} {v:.0f} s" for k, v in results.seconds.items()),
        "encoder for timm": f"{results.encoder.name}.safetensors and .json beside this page"}))
