"""A widget in headless Chromium without Jupyter: its own front-end code over a model that a test can read and write.

    with open_widget(widget) as view:
        view.page.mouse.move(...)          # playwright's page
        view.set("hidden_count", 120)      # as the kernel would
        assert view.get("hover") == 17
"""

import base64
import contextlib
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest

WIDGETS = Path(__file__).resolve().parents[1] / "mask3d_viz" / "widgets"
FLAGS = ["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader"]

PAGE = """<!doctype html><meta charset="utf-8"><title>widget</title><style>body { margin: 12px; font: 14px sans-serif }
body.dark { background: #111; --jp-layout-color0: #111; --jp-layout-color1: #181818; --jp-ui-font-color1: #eee;
--jp-content-font-color1: #eee; --jp-border-color1: #555; }</style><style>STYLE</style><body class="CLASS"><div id="root"></div>
<script type="module">
import { PageModel } from "/page_model.js";
import widget from "/widget.js";
const bytes = (text) => {
  const letters = atob(text), values = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) values[i] = letters.charCodeAt(i); // Uint8Array.from is slow for megabytes
  return new DataView(values.buffer);
};
const values = await (await fetch("/state.json")).json();
const revive = (value) => (value && value.base64 !== undefined ? bytes(value.base64) : value);
for (const name in values) values[name] = revive(values[name]);
window.model = new PageModel(values);
window.saved = [];
window.sent = [];
window.model.on("saved", (changes) => window.saved.push(changes));
window.model.on("sent", (content) => window.sent.push(content));
window.put = (name, value) => { window.model.set(name, revive(value)); window.model.pending.delete(name); };
await widget.initialize?.({ model: window.model });
window.cleanup = await widget.render({ model: window.model, el: document.getElementById("root") });
window.isReady = true;
</script>"""


def plain(value):
    """A trait as JSON; bytes as {"base64": ...}."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    return value


class View:
    """A rendered widget.

    Args:
        page: playwright's page.
        errors: what the page complained about; the context manager fails on any.
    """

    def __init__(self, page, errors):
        self.page, self.errors = page, errors

    def get(self, name):
        """A trait as the page has it; bytes come as a list of numbers."""
        return self.page.evaluate(
            "(name) => { const v = window.model.get(name);"
            " return v instanceof DataView ? [...new Uint8Array(v.buffer, v.byteOffset, v.byteLength)] : v; }", name)

    def set(self, name, value):
        """Change a trait as the kernel would."""
        self.page.evaluate("([name, value]) => window.put(name, value)", [name, plain(value)])

    def saved(self):
        """What the page sent to the kernel through save_changes, oldest first."""
        return self.page.evaluate(
            "() => window.saved.map((s) => Object.fromEntries(Object.entries(s).map(([k, v]) =>"
            " [k, v instanceof DataView ? [...new Uint8Array(v.buffer)] : v])))")

    def lose_kernel(self):
        """What a dead kernel looks like to a view."""
        self.page.evaluate("() => { window.model.comm_live = false; window.model.emit('comm_live_update'); }")


@contextlib.contextmanager
def open_widget(widget, width=1000, height=760, dark=False):
    """Render an anywidget; skip where Chromium or playwright is missing. Requests to anywhere else are errors."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    state = {name: plain(value) for name, value in widget.get_state().items() if not name.startswith("_")}
    files = {"/": ("text/html", PAGE.replace("STYLE", str(widget._css)).replace("CLASS", "dark" if dark else "")),
             "/page_model.js": ("text/javascript", (WIDGETS / "page_model.js").read_text()),
             "/widget.js": ("text/javascript", str(widget._esm)), "/state.json": ("application/json", json.dumps(state)),
             "/favicon.ico": ("image/x-icon", "")}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind, body = files.get(self.path, ("text/plain", None))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address, errors = f"http://127.0.0.1:{server.server_address[1]}", []
    try:
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(viewport={"width": width, "height": height})
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
            page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:"))
                    else errors.append(f"request to {request.url}"))
            page.goto(address)
            try:
                page.wait_for_function("window.isReady === true", timeout=60_000)
                yield View(page, errors)
            finally:
                browser.close()
            assert not errors, errors
    finally:
        server.shutdown()
        server.server_close()
