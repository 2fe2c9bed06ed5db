// Buttons under an explorer. Everything that needs a kernel is asked through the trait "request".

function make(kind, options = {}, ...children) {
  const element = Object.assign(document.createElement(kind), options);
  element.append(...children);
  return element;
}

function typing(target) {
  return target instanceof Element && Boolean(target.closest("input, select, textarea, [contenteditable], .cm-editor"));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // no permission, or no secure page
    const area = make("textarea", { value: text, ariaHidden: "true" });
    area.style.cssText = "position:fixed;left:-9999px";
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}

function render({ model, el }) {
  const listening = new AbortController(), on = { signal: listening.signal };
  const said = make("span", { className: "tb-said", role: "status" });
  const buttons = make("div", { className: "tb-buttons", role: "toolbar", ariaLabel: "Take along" });
  const strip = make("div", { className: "tb-strip", role: "list", ariaLabel: "Kept pictures" });
  const gone = make("div", { className: "tb-gone", role: "alert", hidden: true },
    "The kernel is gone: this is the last that was shown. Run the cell again.");
  el.classList.add("mask3d-toolbar");
  el.append(gone, buttons, strip);
  let number = 0, offered = model.get("file_number"), hiddenCode = null, indicator = null, isShutDown = false;

  const ask = (what, more = {}) => {
    number = Math.max(number, model.get("request")?.number ?? 0) + 1;
    model.set("request", { number, what, ...more });
    model.save_changes();
  };
  const button = (text, title, press) => {
    const made = make("button", { type: "button", textContent: text, title });
    made.addEventListener("click", press, on);
    return made;
  };
  const say = (text) => {
    said.textContent = text;
    setTimeout(() => { if (said.textContent === text) said.textContent = ""; }, 2500);
  };

  function showButtons() {
    buttons.replaceChildren(
      ...(model.get("can_keep") ? [button("keep this picture", "pin what is shown, to come back to it", () => ask("keep"))] : []),
      button("copy as code", "the lines that bring this view back", async () => say(
        await copy(model.get("code")) ? "copied" : "the browser does not allow copying")),
      ...model.get("kinds").map((kind) => button(kind, `save as ${kind}`, () => { say("making it ..."); ask("file", { kind }); })),
      said);
  }

  function showScenes() {
    const scenes = model.get("scenes"), now = model.get("scene");
    strip.hidden = !scenes.length;
    strip.replaceChildren(...scenes.map((scene, index) => {
      const picture = scene.picture ? make("img", { src: scene.picture, alt: "" }) : make("span", { textContent: "▣" });
      const back = button("", `back to ${scene.name}: ${scene.words}`, () => ask("show", { scene: index }));
      back.className = "tb-scene";
      back.setAttribute("aria-pressed", String(index === now));
      back.append(picture, make("span", { textContent: `${index + 1}. ${scene.name}` }), make("small", { textContent: scene.words }));
      const forget = button("×", `forget ${scene.name}`, () => ask("forget", { scene: index }));
      forget.className = "tb-forget";
      forget.ariaLabel = `forget ${scene.name}`;
      return make("div", { className: "tb-kept", role: "listitem" }, back, forget);
    }));
  }

  function download() {
    const latest = model.get("file_number");
    if (latest === offered) return;
    offered = latest;
    const address = URL.createObjectURL(new Blob([model.get("file")], { type: model.get("file_type") }));
    const link = make("a", { href: address, download: model.get("file_name") });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    say(`${model.get("file_name")} saved`);
  }

  // The cell's code is hidden for the projector, and shown again when this view goes.
  function showPresent() {
    const isOn = model.get("present"), cell = el.closest(".jp-CodeCell")?.querySelector(".jp-Cell-inputWrapper");
    el.closest(".mask3d-explorer")?.classList.toggle("mask3d-present", isOn);
    if (isOn && cell && !hiddenCode) {
      hiddenCode = cell;
      cell.style.display = "none";
    } else if (!isOn && hiddenCode) {
      hiddenCode.style.display = "";
      hiddenCode = null;
    }
  }

  // The page's arrow keys are this view's where it is seen, and the reader is in it, or nowhere in particular.
  function isOurs(at) {
    const root = el.closest(".mask3d-explorer") ?? el, box = root.getBoundingClientRect(), whole = document.fullscreenElement;
    if (!root.checkVisibility() || box.bottom <= 0 || box.top >= window.innerHeight || box.right <= 0
      || box.left >= window.innerWidth || (whole && !whole.contains(root))) return false;
    if (!(at instanceof Element) || at === document.body || root.contains(at)) return true;
    const notebook = root.closest(".jp-Notebook");
    return !at.closest(".mask3d-explorer, .mask3d-toolbar") && notebook !== null && notebook === at.closest(".jp-Notebook");
  }

  function step(event) {
    if (!model.get("present") || typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const theirs = "canvas, [role=application], [role=slider], [role=gridcell]";
    if ((event.target instanceof Element && event.target.closest(theirs)) || !isOurs(document.activeElement)) return;
    const what = { ArrowRight: "next", PageDown: "next", ArrowLeft: "previous", PageUp: "previous" }[event.key];
    if (!what || !model.get("scenes").length) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // other presented views listen here too
    ask(what);
  }

  // anywidget hands on the event of a lost kernel but not its value; JupyterLab then marks the views' elements. It does not
  // when the reader shuts the kernel down: the notebook's own indicator alone says so then.
  function checkKernel() {
    isShutDown ||= ["terminating", "dead"].includes(indicator?.dataset.status);
    const isGone = isShutDown || model.comm_live === false || Boolean(el.closest(".jupyter-widgets-disconnected"));
    gone.hidden = !isGone;
    const root = el.closest(".mask3d-explorer");
    root?.classList.toggle("is-gone", isGone);
    if (isGone && root) root.prepend(gone); // where a reader of a tall view sees it
    else if (gone.parentNode !== el) el.prepend(gone);
    el.classList.toggle("is-gone", isGone);
  }

  showButtons();
  showScenes();
  const watched = new MutationObserver(checkKernel);
  const attach = () => { // JupyterLab renders first and attaches then
    if (!el.isConnected) return requestAnimationFrame(attach);
    for (let e = el; e && !e.classList.contains("jp-OutputArea-output"); e = e.parentElement) {
      watched.observe(e, { attributes: true, attributeFilter: ["class"] });
    }
    indicator = el.closest(".jp-NotebookPanel")?.querySelector(".jp-Notebook-ExecutionIndicator");
    if (indicator) watched.observe(indicator, { attributes: true, attributeFilter: ["data-status"] });
    showPresent();
    checkKernel();
  };
  attach();
  model.on("change:kinds", showButtons);
  model.on("change:scenes change:scene", showScenes);
  model.on("change:file_number", download);
  model.on("change:present", showPresent);
  model.on("comm_live_update", checkKernel);
  document.addEventListener("keydown", step, { capture: true, ...on });
  return () => {
    listening.abort();
    watched.disconnect();
    gone.remove();
    if (hiddenCode) hiddenCode.style.display = "";
    model.off("change:kinds", showButtons);
    model.off("change:scenes change:scene", showScenes);
    model.off("change:file_number", download);
    model.off("change:present", showPresent);
    model.off("comm_live_update", checkKernel);
  };
}

export default { render };
