"""The page: self-contained, escaped, balanced; in a real browser as wide as the screen, with all its pictures."""

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import make_frame

from mask3d_core.errors import Mask3DError
from mask3d_viz.pixels import to_png
from mask3d_viz.html_page import (Page, choices, facts, figure, heading, inline, note, raw_json, table, text,
                               write_report)
from mask3d_viz.scores import Score

VOID = {"meta", "link", "img", "input", "source", "br"}
NASTY = '<script>alert("x")</script> & \'quotes\''


class Outline(HTMLParser):
    """Every tag with its attributes; fails on tags that do not close in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def sample_page():
    color = make_frame(48, 64).color
    row = np.concatenate([np.tile(color, (6, 6, 1))] * 4, axis=1)
    page = Page("A run", lead="What it learned.", footer="The end.")
    page.section("", facts({"command": "mask3d evaluate " + "long/" * 40, "version": "0.1.0"}))
    page.section("Scores", text("One `word`.\n\n**Two** words."), table(
        ["model", "AbsRel", "delta1", "frames"],
        [["ours", Score(0.0431, 0.040, 0.046), 0.97, 1440], ["nearest", 0.0634, 0.97, 1440], ["broken", None, None, 0]],
        best={"AbsRel": "min", "delta1": "max"}, ours=["ours"], caption="Hidden measured pixels"))
    page.section("Pictures", heading("One"), figure(color, "noise", "A caption."), figure(row, "a row of noise"),
                 choices({"light": figure(color, "noise"), "dark": figure(255 - color, "noise", dark=color)}, "pick"))
    page.section("Numbers", note("Careful.", warns=True), raw_json("All", {"a": float("nan"), "b": np.arange(2)}))
    return page


def test_the_page_is_well_formed_and_fetches_nothing():
    page = sample_page().html()
    outline = Outline(page)
    assert outline.tags[0][0] == "html" and outline.all("html")[0]["lang"] == "en"
    assert not outline.all("script")
    for _, attributes in outline.tags:
        for key in ("src", "srcset", "href", "poster"):
            if key in attributes:
                assert attributes[key].startswith(("data:", "#")), attributes[key][:80]
    assert not re.search(r"https?://|@import|url\(", page)
    assert all(picture["alt"].strip() for picture in outline.all("img"))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in outline.all("a"):
        assert link["href"][1:] in ids
    assert "prefers-color-scheme:dark" in page and page == sample_page().html()


def test_pictures_arrive_whole():
    color = make_frame().color
    (picture,) = Outline(figure(color, "noise")).all("img")
    assert base64.b64decode(picture["src"].split(",")[1]) == to_png(color)
    assert (picture["width"], picture["height"]) == ("64", "48")
    assert Outline(figure(to_png(color), "noise")).all("img") == [picture]


def test_every_text_is_escaped():
    page = Page(NASTY, NASTY, NASTY)
    page.section(NASTY, text(NASTY), heading(NASTY), note(NASTY), facts({NASTY: NASTY}),
                 raw_json(NASTY, {NASTY: NASTY}), figure(np.zeros((2, 2, 3), np.uint8), NASTY, NASTY),
                 table([NASTY, "b"], [[NASTY, NASTY]], caption=NASTY))
    page.section("b")
    page.section("c")
    outline = Outline(page.html())
    assert not outline.all("script")
    assert outline.all("img")[0]["alt"] == NASTY
    assert inline("a `b<c` **d**") == "a <code>b&lt;c</code> <strong>d</strong>"


def cells(block):
    return re.findall(r"<td([^>]*)>(.*?)</td>", block)


def test_table_marks_the_best_and_sets_numbers_right():
    block = table(["model", "AbsRel", "delta1", "note"],
                  [["a", Score(0.043, 0.040, 0.046), 0.97, "ours"], ["b", 0.063, 0.9704, "n"],
                   ["c", float("nan"), None, "n"]], best={"AbsRel": "min", "delta1": "max"}, ours=["a"])
    found = cells(block)
    assert [("best" in kind) for kind, _ in found] == [True, True, False, False, True, False, False, False, False]
    assert [("number" in kind) for kind, _ in found] == [True, True, False] * 3
    assert found[0][1] == '0.043 <span class="interval">[0.040, 0.046]</span>'
    assert found[6][1] == "not finite" and "not measured" in found[7][1]
    assert block.count('<tr class="ours">') == 1 and '<th scope="row">a</th>' in block


def test_table_writes_integers_and_signs():
    block = table(["a", "b"], [["x", 1234567], ["y", -0.5], ["z", np.int64(3)]], digits=1)
    assert [content for _, content in cells(block)] == ["1\u202f234\u202f567", "\u22120.5", "3"]


def test_raw_json_stays_json():
    data = {"nan": float("nan"), "array": np.arange(3), "score": Score(1.0, None, None),
            "deep": [{"x": np.float32(0.5)}], "text": "</pre><b>", 3: (True, None)}
    block = raw_json("numbers", data)
    found = json.loads(html.unescape(re.search(r"<pre>(.*)</pre>", block, re.S).group(1)))
    assert found == {"nan": None, "array": [0, 1, 2], "score": {"value": 1.0, "low": None, "high": None},
                     "deep": [{"x": 0.5}], "text": "</pre><b>", "3": [True, None]}


def test_write_report_is_one_file(tmp_path):
    path = write_report(tmp_path / "new" / "report.html", "Title", [("One", [text("a")]), ("Two", [text("b")])])
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert "<h2>Two</h2><p>b</p>" in path.read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = write_report(tmp_path / "report.html", "Old", [])
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_report(path, "New", [])
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"] and "Old" in path.read_text()


@pytest.mark.parametrize("call", [
    lambda: figure(np.zeros((2, 2, 3), np.uint8), " "), lambda: figure(b"GIF89a", "a"),
    lambda: table(["a", "b"], [["x"]]), lambda: table(["a"], [], best={"b": "min"}),
    lambda: table(["a"], [], best={"a": "lowest"}), lambda: choices({}, "x"),
    lambda: choices({"a": text("b")}, "no spaces"), lambda: Page("t").add("plain <b>words</b>"),
])
def test_wrong_input_gives_one_clear_line(call):
    with pytest.raises(Mask3DError, match=r"expected .+; got .+\. \w"):
        call()


@pytest.mark.browser
@pytest.mark.parametrize("width", [500, 1280])
def test_in_a_browser_the_page_fits_and_every_picture_shows(tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    probe = ("<script>addEventListener('load',()=>{const seen=[...document.images].filter(i=>i.offsetParent);"
             "document.body.textContent='probe '+JSON.stringify({inner:innerWidth,"
             "scroll:document.documentElement.scrollWidth,images:seen.length,"
             "shown:seen.filter(i=>i.complete&&i.naturalWidth>0&&i.getBoundingClientRect().width>0).length,"
             "font:Math.min(...[...document.querySelectorAll('p,td,th,dt,dd,figcaption,label,summary,span,code')]"
             ".map(e=>parseFloat(getComputedStyle(e).fontSize)))})})</script></body>")
    path = tmp_path / "page.html"
    path.write_text(sample_page().html().replace("</body>", probe), encoding="utf-8")
    out = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000",
         "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=60, check=True).stdout
    found = json.loads(re.search(r"probe (\{.*?\})", out).group(1))
    assert found["inner"] == width and found["scroll"] <= width  # nothing sticks out sideways
    assert found["images"] == found["shown"] == 3  # of two to choose from, one
    assert found["font"] >= 12
