"""The toolbar in a browser: it asks for files, keeps pictures, and steps through them on a projector."""

import pytest

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from browser import open_widget

from mask3d_viz.widgets.toolbar import Toolbar

SCENES = [{"name": "first", "words": "60 of 300", "picture": ""}, {"name": "second", "words": "15 of 300", "picture": ""}]


def requests(view):
    return [s["request"] for s in view.saved() if "request" in s]


def test_buttons_ask_and_a_file_comes_as_a_download():
    with open_widget(Toolbar(kinds=["PNG", "CSV"], code="explore(session)")) as view:
        names = view.page.locator("button").all_inner_texts()
        assert names == ["keep this picture", "copy as code", "PNG", "CSV"]
        view.page.get_by_role("button", name="CSV").click()
        view.page.get_by_role("button", name="keep this picture").click()
        assert [(r["what"], r.get("kind")) for r in requests(view)] == [("file", "CSV"), ("keep", None)]
        assert [r["number"] for r in requests(view)] == [1, 2]
        with view.page.expect_download() as arriving:
            for name, value in (("file", b"a,b\n1,2\n"), ("file_name", "table.csv"), ("file_type", "text/csv"), ("file_number", 1)):
                view.set(name, value)
        assert arriving.value.suggested_filename == "table.csv"
        assert open(arriving.value.path(), "rb").read() == b"a,b\n1,2\n"


def test_scenes_come_back_by_click_and_on_a_projector_by_arrow_keys():
    with open_widget(Toolbar(kinds=["PNG"], scenes=SCENES, scene=0)) as view:
        assert view.page.locator(".tb-scene[aria-pressed=true]").inner_text().split("\n")[1] == "1. first"
        view.page.locator(".tb-scene").nth(1).click()
        view.page.keyboard.press("ArrowRight")
        assert [r["what"] for r in requests(view)] == ["show"], "without a projector arrow keys are the page's"
        view.set("present", True)
        view.page.evaluate("document.activeElement.blur()")
        view.page.keyboard.press("ArrowRight")
        view.page.keyboard.press("PageUp")
        assert [r["what"] for r in requests(view)] == ["show", "next", "previous"]
        view.page.locator(".tb-forget").first.click()
        assert requests(view)[-1] == {"number": 4, "what": "forget", "scene": 0}


SECOND_VIEW = """async (values) => {
const { default: widget } = await import("/widget.js"), { PageModel } = await import("/page_model.js");
const own = document.getElementById("root");
own.classList.add("mask3d-explorer");
own.style.minHeight = "200px";
const root = Object.assign(document.createElement("div"), { className: "mask3d-explorer", id: "second" });
const far = Object.assign(document.createElement("div"), { id: "far" });
const other = Object.assign(document.createElement("div"), { tabIndex: 0, role: "slider", id: "theirs" });
document.body.append(far, root);
window.second = new PageModel(values);
window.asked = [];
window.second.on("saved", (changes) => window.asked.push(changes.request.what));
widget.render({ model: window.second, el: root.appendChild(document.createElement("div")) });
root.append(other); }"""


def test_of_several_presented_views_one_alone_steps():
    toolbar = Toolbar(kinds=["PNG"], scenes=SCENES, scene=0, present=True)
    values = {name: value for name, value in toolbar.get_state().items() if not name.startswith("_") and name != "file"}
    with open_widget(toolbar) as view:
        view.page.evaluate(SECOND_VIEW, values)
        both = lambda: (len(requests(view)), len(view.page.evaluate("window.asked")))  # noqa: E731
        view.page.keyboard.press("ArrowRight")
        assert sum(both()) == 1, "one key, one step"
        before = both()
        view.page.locator("#second .tb-scene").first.focus()
        view.page.keyboard.press("ArrowRight")
        assert both() == (before[0], before[1] + 1), "the view that the reader is in"
        view.page.locator("#theirs").focus()
        view.page.keyboard.press("ArrowRight")
        assert both() == (before[0], before[1] + 1), "a slider's arrow keys are its own"
        view.page.evaluate("document.activeElement.blur(); document.getElementById('far').style.height = '3000px'; "
                           "scrollTo(0, 1e6)")
        view.page.keyboard.press("ArrowRight")
        assert both() == (before[0], before[1] + 2), "what is out of sight stays"


def test_a_lost_kernel_is_said_at_the_top_of_a_tall_view():
    with open_widget(Toolbar(kinds=["PNG"])) as view:
        view.page.evaluate("document.body.classList.add('mask3d-explorer'); document.body.prepend(Object.assign("
                           "document.createElement('div'), { style: 'height: 2000px' }))")
        view.lose_kernel()
        place = view.page.get_by_role("alert").bounding_box()
        assert place["y"] < 100
        assert view.page.evaluate("getComputedStyle(document.querySelector('.tb-gone')).opacity") == "1"
        view.page.evaluate("scrollTo(0, 900)")
        assert 0 <= view.page.get_by_role("alert").bounding_box()["y"] < 100, "wherever one looks"


@pytest.mark.parametrize("dark", [False, True])
def test_a_lost_kernel_is_said(dark):
    with open_widget(Toolbar(kinds=["PNG"], scenes=SCENES), dark=dark) as view:
        assert not view.page.get_by_role("alert").is_visible()
        view.lose_kernel()
        assert "Run the cell again" in view.page.get_by_role("alert").inner_text()
