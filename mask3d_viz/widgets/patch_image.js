// A picture with its patch grid on a canvas: mask, painting, selection, values per patch, arrows.
//
// One module without imports: it runs the same over a kernel's model and over a saved page's. What is drawn follows
// from the model's traits and from what the hand does now; any change asks for one redraw, in the next frame. Patches
// are numbered row by row from 0; words count rows and columns from 1. Points are in patches, not in pixels.

const NOTHING = 65535; // rank of a patch that holds no measured pixel
const VISIBLE = 0, HIDDEN = 1, UNMEASURED = 2;
// The colours of mask3d_viz/style.py (a test compares them): ground and stripe.
const HOLE_COLORS = [[226, 227, 229], [168, 171, 176]];
const HIDDEN_COLORS = [[118, 121, 127], [88, 91, 97]];
const GUESSED_COLORS = [[255, 190, 230], [150, 20, 100]], GUESSED_SHARE = 0.72;
const MARKS = { hidden: "hidden from the model", hole: "never measured", guessed: "predicted where nothing was measured" };
const UNDER_A_GUESS = [187, 55, 84]; // a depth of medium range, as an example
const AROUND = "rgb(17,19,22)", SELECTED = "rgb(25,227,255)";
const DIM_OPACITY = 0.72;
const GONE = "kernel gone - run the cell again";

const ICONS = { // paths in a box of 16 x 16
  select: "M4 2l8.5 6.5-4 .5 2.4 4.4-1.9 1-2.3-4.4L4 13z",
  hide: "M2.5 2.5h11v11h-11zM2.5 6l7.5 7.5M6 2.5l7.5 7.5M2.5 10L6 13.5M10 2.5L13.5 6",
  show: "M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8zM6.1 8a1.9 1.9 0 1 0 3.8 0a1.9 1.9 0 1 0-3.8 0z",
  brush: "M13.5 2.5L7.5 9M6 8.5c-2 0-2.5 1.5-2.5 3 0 .8-.6 1.5-1.5 1.8 3 .9 6 .2 6-2.5 0-1.4-.8-2.3-2-2.3z",
  lasso: "M5.2 9.9C3 9.3 1.8 8 1.8 6.5 1.8 4.3 4.6 2.5 8 2.5s6.2 1.8 6.2 4-2.8 4-6.2 4q-1 0-1.8-.2"
    + "M5 9.2c-1.2.8-.7 2.3.5 2.1 1-.2 1-1.5 0-1.9M6 11.2c.3 1.4-.5 2.3-1.7 2.6",
  undo: "M5.5 2.5L2.5 5.5l3 3M3 5.5h6.2a4 4 0 0 1 0 8H5",
  clear: "M3 4.5h10M6.2 4.5v-2h3.6v2M4.3 4.5l.7 9h6l.7-9M6.8 7v4M9.2 7v4",
};

function asBytes(value) {
  if (!value) return new Uint8Array(0);
  return new Uint8Array(value.buffer ?? value, value.byteOffset ?? 0, value.byteLength);
}

function asNumbers(value, Kind) {
  const bytes = asBytes(value).slice(); // a copy: numbers must begin at a multiple of their size
  return new Kind(bytes.buffer, 0, Math.floor(bytes.length / Kind.BYTES_PER_ELEMENT));
}

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function put(node, name, value) { // write only what differs, so that nothing is announced or laid out twice
  if (name in node) node[name] === value || (node[name] = value);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function canvasOf(width, height, rgba) {
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  return canvas;
}

// Diagonal stripes as mask3d_viz.pixels.hatching draws them; `period` in device pixels.
function hatching([ground, stripe], rising, period) {
  const rgba = new Uint8ClampedArray(period * period * 4);
  const wide = Math.round(period / 4);
  for (let i = 0; i < period * period; i++) {
    const row = Math.floor(i / period), column = i % period;
    const phase = (rising ? row + column : row - column + period) % period;
    const strength = phase < wide ? 1 : phase === wide || phase === period - 1 ? 0.45 : 0;
    for (let k = 0; k < 3; k++) rgba[4 * i + k] = ground[k] + strength * (stripe[k] - ground[k]);
    rgba[4 * i + 3] = 255;
  }
  return canvasOf(period, period, rgba);
}

function swatch(name) { // a piece of a hatching, for the legend
  const canvas = make("canvas", { width: 24, height: 12, ariaHidden: "true" }), ctx = canvas.getContext("2d");
  const colors = { hidden: HIDDEN_COLORS, hole: HOLE_COLORS, guessed: GUESSED_COLORS }[name];
  const mixed = name !== "guessed" ? colors : colors.map((color) => color.map((value, k) => (
    Math.round((1 - GUESSED_SHARE) * UNDER_A_GUESS[k] + GUESSED_SHARE * value))));
  ctx.fillStyle = ctx.createPattern(hatching(mixed, name !== "hidden", 8), "repeat");
  ctx.fillRect(0, 0, 24, 12);
  return canvas;
}

const edges = (length, cells) => Array.from({ length: cells + 1 }, (_, i) => Math.round((i * length) / cells));

// The square of `side` patches around a point, cut to the grid.
function footprint([x, y], side, [rows, columns]) {
  const left = Math.round(x - side / 2), top = Math.round(y - side / 2);
  return { left: Math.max(0, left), top: Math.max(0, top),
           right: Math.min(columns, left + side), bottom: Math.min(rows, top + side) };
}

function patchesUnder(point, side, grid) {
  const { left, top, right, bottom } = footprint(point, side, grid), found = [];
  for (let row = top; row < bottom; row++) for (let c = left; c < right; c++) found.push(row * grid[1] + c);
  return found;
}

// The patches whose centre lies inside a closed path (even-odd); the first point's patch where there is none.
function patchesInside(path, [rows, columns]) {
  const found = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const x = column + 0.5, y = row + 0.5;
      let inside = false;
      for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
        const [ax, ay] = path[i], [bx, by] = path[j];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
      }
      if (inside) found.push(row * columns + column);
    }
  }
  return found.length ? found : patchesUnder(path[0], 1, [rows, columns]);
}

// Round numbers on a scale, about so many: one alone is no scale, so finer steps follow, and then the two ends.
function ticksBetween(low, high, count) {
  for (let more = 1; more <= 4; more *= 2) {
    const raw = (high - low) / (more * count), power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-6)), ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k <= Math.floor(high / step + 1e-9); k++) ticks.push([k * step, digits]);
    if (ticks.length > 1 && ticks.length <= count + 1) return ticks;
  }
  const digits = Math.max(0, 1 - Math.floor(Math.log10(high - low) + 1e-6));
  return [[low, digits], [high, digits]];
}

function inWords(value, digits, signed = false) {
  const text = Math.abs(value).toFixed(digits);
  const sign = Number(text) === 0 ? "" : value < 0 ? "\u2212" : signed ? "+" : "";
  return sign + text;
}

class PatchView {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.kept = new Map();
    this.pointer = null; // where the hand is, in patches
    this.pressed = -1; // patch on which a click began
    this.stroke = null; // {path, patches: Set, value} while painting
    this.listening = new AbortController();
    this.schedule = () => { this.frame ??= requestAnimationFrame(() => this.show()); };
    this.build();
    this.listen();
    this.show();
  }

  // ---- what the model says -------------------------------------------------------------------------------------

  get(name) { return this.model.get(name); }

  // The model proxy of a notebook does not pass comm_live on; there the view's element carries the answer as a class.
  get isLive() { return this.model.comm_live ?? !this.el.closest(".jupyter-widgets-disconnected"); }

  get grid() {
    const [height, width] = this.get("size"), patch = this.get("patch");
    return [Math.floor(height / patch), Math.floor(width / patch)];
  }

  get count() { return this.grid[0] * this.grid[1]; }

  // Something made from traits, made again only when one of them has changed.
  from(names, build) {
    const key = names.join(), now = names.map((name) => this.get(name)), old = this.kept.get(key);
    if (old && old.now.every((value, i) => value === now[i])) return old.made;
    const made = build(...now);
    this.kept.set(key, { now, made });
    return made;
  }

  picture() {
    return this.from(["pixels", "size"], (pixels, [height, width]) => {
      const rgb = asBytes(pixels);
      if (!rgb.length || rgb.length !== width * height * 3) return null;
      const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
      for (let i = 0, k = 0; i < rgb.length; i += 3, k += 4) {
        rgba[k] = rgb[i]; rgba[k + 1] = rgb[i + 1]; rgba[k + 2] = rgb[i + 2];
      }
      return canvasOf(width, height, rgba);
    });
  }

  ranks() { return this.from(["rank"], (rank) => asNumbers(rank, Uint16Array)); }

  heat() {
    return this.from(["heat", "palette", "heat_range", "size", "patch"], (heat, palette, [low, high]) => {
      const numbers = asNumbers(heat, Float32Array), colors = asBytes(palette), [rows, columns] = this.grid;
      if (!numbers.length || numbers.length !== rows * columns || colors.length !== 768) return null;
      const rgba = new Uint8ClampedArray(numbers.length * 4);
      numbers.forEach((value, i) => {
        if (!Number.isFinite(value)) return;
        const place = Math.round(Math.min(1, Math.max(0, (value - low) / (high - low))) * 255);
        rgba.set([colors[3 * place], colors[3 * place + 1], colors[3 * place + 2], 255], 4 * i);
      });
      return rgba;
    });
  }

  // Each patch as it is drawn now, the stroke under the hand included.
  states() {
    const n = this.count, ranks = this.ranks(), painted = asBytes(this.get("painted"));
    const hiddenCount = this.get("hidden_count"), isRanked = ranks.length === n, states = new Uint8Array(n);
    for (let i = 0; i < n; i++) {
      const byHand = this.stroke?.patches.has(i) ? this.stroke.value : painted.length === n ? painted[i] : 0;
      if (isRanked && ranks[i] === NOTHING) states[i] = UNMEASURED;
      else if (byHand) states[i] = byHand === 1 ? HIDDEN : VISIBLE;
      else states[i] = isRanked && ranks[i] < hiddenCount ? HIDDEN : VISIBLE;
    }
    return states;
  }

  words(states) { // the readout of one patch
    const hover = this.get("hover"), selection = this.get("selection"), [, columns] = this.grid;
    const patch = hover >= 0 ? hover : selection.length ? selection[selection.length - 1] : -1;
    if (patch < 0 || patch >= states.length) return "";
    const said = [`row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`];
    const isMasked = this.ranks().length || asBytes(this.get("painted")).length || this.stroke;
    if (isMasked) said.push(["visible", "hidden", "nothing measured"][states[patch]]);
    const values = this.from(["values"], (bytes) => asNumbers(bytes, Float32Array));
    this.get("columns").forEach(({ name, unit, digits = 2, signed }, i) => {
      const value = values[i * states.length + patch];
      if (Number.isFinite(value)) said.push(`${name} ${inWords(value, digits, signed)}${unit ? `\u00a0${unit}` : ""}`);
    });
    return said.join(" \u00b7 ");
  }

  // ---- elements ------------------------------------------------------------------------------------------------

  build() {
    const range = (properties) => make("input", { type: "range", ...properties });
    this.title = make("span", { className: "pi-title" });
    this.note = make("span", { className: "pi-note" });
    this.stale = make("span", { className: "pi-stale", textContent: "stale" });
    this.canvas = make("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "picture with patches" });
    this.gone = make("div", { className: "pi-gone", role: "status" });
    this.readout = make("div", { className: "pi-readout", "aria-live": "polite" });
    this.slider = range({ min: "0", ariaLabel: "patches hidden" });
    this.output = make("output", {});
    this.ratio = make("div", { className: "pi-ratio" }, make("span", { textContent: "hidden", ariaHidden: "true" }),
                      this.slider, this.output);
    this.size = range({ min: "1", max: "5", ariaLabel: "brush size in patches" });
    this.sizeWords = make("output", {});
    this.strip = make("canvas", { width: 256, height: 1 });
    this.ticks = make("div", { className: "pi-ticks" });
    this.bar = make("div", { className: "pi-bar", role: "img" }, this.strip, this.ticks);
    this.legend = make("div", { className: "pi-legend" });
    const size = make("label", { className: "pi-size", title: "brush size in patches" }, this.size, this.sizeWords);
    this.tools = make("div", { className: "pi-tools", role: "toolbar", ariaLabel: "painting" },
      this.group("tool", "what the hand does", { select: "Select", hide: "Hide", show: "Show" }),
      this.group("shape", "with", { brush: "Brush", lasso: "Lasso" }), size,
      this.group("request", "painted patches", { undo: "Undo the last stroke", clear: "Clear what was painted" }));
    this.root = make("div", { className: "patch-image", "data-lm-suppress-shortcuts": "true" },
      make("div", { className: "pi-head" }, this.title, this.stale, this.note), this.tools,
      make("div", { className: "pi-stage" }, this.canvas, this.gone), this.ratio, this.bar, this.legend,
      this.readout);
    this.el.classList.add("patch-image-host");
    this.el.append(this.root);
  }

  group(trait, ariaLabel, names) {
    const buttons = Object.entries(names).map(([value, text]) => {
      const button = make("button", { type: "button", ariaLabel: text, title: text });
      Object.assign(button.dataset, { trait, value });
      button.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${ICONS[value]}"/></svg>`;
      button.append(make("span", { textContent: text }));
      button.addEventListener("click", () => (trait === "request" ? this.ask(value) : this.save({ [trait]: value })));
      return button;
    });
    return make("div", { className: "pi-group", role: "group", ariaLabel }, ...buttons);
  }

  listen() {
    const { signal } = this.listening, { canvas, slider } = this;
    const on = (node, events, act) => {
      for (const event of events.split(" ")) node.addEventListener(event, act, { signal });
    };
    on(canvas, "pointerdown", (event) => this.press(event));
    on(canvas, "pointermove", (event) => this.move(event));
    on(canvas, "pointerup", (event) => this.release(event));
    on(canvas, "pointercancel", () => this.drop());
    on(canvas, "pointerleave blur", () => { // what another view points at stays
      if (this.pointer && !this.stroke) this.pointAt(null);
    });
    on(canvas, "focus", this.schedule);
    on(canvas, "keydown", (event) => this.key(event));
    on(slider, "input", () => this.set({ hidden_count: Number(slider.value) }));
    on(slider, "pointerdown", () => this.save({ is_dragging: true }));
    on(slider, "change", () => this.letGo());
    on(window, "pointerup pointercancel", () => this.letGo()); // the hand may leave the slider before it lets go
    on(this.size, "input", () => this.set({ brush: Number(this.size.value) }));
    on(window, "resize", this.schedule); // also the zoom, which changes devicePixelRatio
    this.observer = new ResizeObserver(this.schedule);
    this.observer.observe(this.root);
    this.model.on("change", this.schedule);
    this.model.on("comm_live_update", this.schedule);
  }

  remove() {
    this.listening.abort();
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    this.model.off("change", this.schedule);
    this.model.off("comm_live_update", this.schedule);
    this.el.classList.remove("patch-image-host");
    this.root.remove();
  }

  // ---- changes made by the hand --------------------------------------------------------------------------------

  set(changes) { // seen at once, told to the kernel at most once a frame
    if (!this.isLive) return;
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.isUnsaved = true;
    this.schedule();
  }

  save(changes) {
    if (!this.isLive) return;
    this.set(changes);
    this.isUnsaved = false;
    this.model.save_changes();
  }

  letGo() { if (this.get("is_dragging")) this.save({ is_dragging: false }); }

  ask(what) { this.save({ request: { number: (this.get("request").number ?? 0) + 1, what } }); }

  pointAt(point) {
    const [rows, columns] = this.grid;
    const isInside = point && point[0] >= 0 && point[1] >= 0 && point[0] < columns && point[1] < rows;
    const hover = isInside ? Math.floor(point[1]) * columns + Math.floor(point[0]) : -1;
    this.pointer = point;
    this.schedule();
    if (hover !== this.get("hover")) this.set({ hover });
    return hover;
  }

  choose(patch, isAdding) {
    const old = this.get("selection"), has = old.includes(patch);
    if (isAdding) this.save({ selection: has ? old.filter((other) => other !== patch) : [...old, patch] });
    else this.save({ selection: has && old.length === 1 ? [] : [patch] });
  }

  place(event) { // of a pointer, in patches
    const box = this.canvas.getBoundingClientRect(), [rows, columns] = this.grid;
    return [((event.clientX - box.left) / box.width) * columns, ((event.clientY - box.top) / box.height) * rows];
  }

  get paints() { return this.get("can_paint") && this.get("tool") !== "select"; }

  press(event) {
    if (!this.isLive || event.button !== 0 || !event.isPrimary || !this.count) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    const patch = this.pointAt(this.place(event));
    if (!this.paints) { this.pressed = patch; return; }
    this.canvas.setPointerCapture(event.pointerId);
    this.begin(this.pointer);
  }

  move(event) {
    if (!this.isLive || !event.isPrimary) return;
    this.pointAt(this.place(event));
    if (this.stroke) this.extend(this.pointer);
  }

  release(event) {
    if (!event.isPrimary) return;
    if (this.stroke) this.finish();
    else if (this.pressed >= 0 && this.pointAt(this.place(event)) === this.pressed) {
      this.choose(this.pressed, event.shiftKey || event.ctrlKey || event.metaKey);
    }
    this.pressed = -1;
  }

  drop() { // the stroke is given up: nothing was painted
    this.stroke = null;
    this.pressed = -1;
    this.schedule();
  }

  begin(point) {
    this.stroke = { path: [point], patches: new Set(), value: this.get("tool") === "hide" ? 1 : 2 };
    this.extend(point);
  }

  extend(point) {
    const { path, patches } = this.stroke, last = path[path.length - 1], ranks = this.ranks();
    const cover = (found) => { for (const patch of found) if (ranks[patch] !== NOTHING) patches.add(patch); };
    path.push(point);
    if (this.get("shape") === "lasso") {
      patches.clear();
      cover(patchesInside(path, this.grid));
    } else { // a fast hand leaves gaps between its events
      const steps = Math.max(1, Math.ceil(Math.hypot(point[0] - last[0], point[1] - last[1]) * 4));
      for (let i = 1; i <= steps; i++) {
        const at = [0, 1].map((k) => last[k] + ((point[k] - last[k]) * i) / steps);
        cover(patchesUnder(at, this.get("brush"), this.grid));
      }
    }
    this.schedule();
  }

  finish() {
    const { patches, value } = this.stroke, old = asBytes(this.get("painted"));
    this.drop();
    if (!patches.size) return;
    const painted = old.length === this.count ? old.slice() : new Uint8Array(this.count);
    for (const patch of patches) painted[patch] = value;
    const number = (this.get("stroke").number ?? 0) + 1;
    this.save({ painted: new DataView(painted.buffer),
                stroke: { number, patches: [...patches].sort((a, b) => a - b), value } });
  }

  key(event) {
    if (!this.isLive || !this.count) return;
    const [rows, columns] = this.grid, selection = this.get("selection"), hover = this.get("hover");
    const at = hover >= 0 ? hover : selection.length ? selection[selection.length - 1] : -1;
    const row = Math.floor(at / columns), column = at % columns;
    const go = { ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column],
                 ArrowDown: [row + 1, column], Home: [row, 0], End: [row, columns - 1] }[event.key];
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && this.get("can_paint")) this.ask("undo");
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (go) {
      const [r, c] = at < 0 ? [0, 0] : go;
      this.pointAt([Math.min(columns - 1, Math.max(0, c)) + 0.5, Math.min(rows - 1, Math.max(0, r)) + 0.5]);
    } else if ((event.key === "Enter" || event.key === " ") && at >= 0) {
      this.pointAt([column + 0.5, row + 0.5]);
      if (this.paints) { this.begin(this.pointer); this.finish(); } else this.choose(at, event.shiftKey);
    } else if (event.key === "Escape") {
      if (this.stroke) this.drop();
      else if (selection.length) this.save({ selection: [] });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // ---- one frame -----------------------------------------------------------------------------------------------

  show() {
    this.frame = undefined;
    const states = this.states();
    this.showWords(states);
    this.showTools();
    this.showBar();
    this.showLegend(states);
    this.draw(states);
    if (this.isUnsaved && this.isLive) {
      this.isUnsaved = false;
      this.model.save_changes();
    }
  }

  showWords(states) {
    const { isLive } = this, [rows, columns] = this.grid, label = this.get("label");
    const measured = states.filter((state) => state !== UNMEASURED).length;
    const seen = `${states.filter((state) => state === VISIBLE).length} of ${measured} patches visible`;
    const used = this.ranks().reduce((most, rank) => (rank === NOTHING ? most : Math.max(most, rank + 1)), 0);
    put(this.title, "textContent", label);
    put(this.note, "textContent", this.get("note"));
    put(this.stale, "hidden", !this.get("stale"));
    put(this.title.parentNode, "hidden", !label && !this.get("note") && !this.get("stale"));
    put(this.canvas, "aria-label", `${label || "picture"}, ${rows} rows and ${columns} columns of patches. `
      + `Arrow keys move, Enter ${this.paints ? "paints" : "selects"}, Escape clears.`);
    put(this.canvas, "tabIndex", isLive ? 0 : -1);
    put(this.gone, "textContent", isLive ? "" : GONE);
    put(this.ratio, "hidden", !this.get("ratio_control"));
    put(this.slider, "max", String(used));
    put(this.slider, "value", String(Math.min(used, this.get("hidden_count"))));
    put(this.slider, "disabled", !isLive);
    put(this.slider, "ariaValueText", seen);
    put(this.output, "textContent", seen);
    put(this.readout, "textContent", this.words(states));
    this.root.classList.toggle("is-gone", !isLive);
    this.root.classList.toggle("is-stale", this.get("stale"));
    put(this.root.style, "maxWidth", `${this.get("max_width")}px`);
  }

  showTools() {
    put(this.tools, "hidden", !this.get("can_paint"));
    this.root.classList.toggle("is-narrow", this.root.clientWidth < 440);
    this.root.classList.toggle("is-painting", this.paints);
    for (const button of this.tools.querySelectorAll("button")) {
      const { trait, value } = button.dataset;
      if (trait !== "request") put(button, "ariaPressed", String(this.get(trait) === value));
      put(button, "disabled", !this.isLive || (trait === "shape" && !this.paints));
    }
    put(this.size, "value", String(this.get("brush")));
    put(this.size, "disabled", !this.isLive || !this.paints || this.get("shape") === "lasso");
    put(this.sizeWords, "textContent", `${this.get("brush")} \u00d7 ${this.get("brush")}`);
  }

  showBar() {
    const width = this.root.clientWidth, wide = Math.max(2, Math.min(6, Math.floor(width / 80)));
    put(this.bar, "hidden", asBytes(this.get("bar_palette")).length !== 768);
    if (this.bar.hidden) return;
    const said = [...asBytes(this.get("bar_palette")), this.get("bar_range"), this.get("bar_unit"), wide].join();
    if (this.barSaid === said) return;
    this.barSaid = said;
    const colors = asBytes(this.get("bar_palette")), [low, high] = this.get("bar_range"), unit = this.get("bar_unit");
    const rgba = new Uint8ClampedArray(1024).fill(255);
    for (let i = 0; i < 256; i++) rgba.set(colors.subarray(3 * i, 3 * i + 3), 4 * i);
    this.strip.getContext("2d").putImageData(new ImageData(rgba, 256, 1), 0, 0);
    this.ticks.replaceChildren(...ticksBetween(low, high, wide).map(([value, digits], i) => {
      const tick = make("span", { textContent: inWords(value, digits) + (i ? "" : `\u00a0${unit}`) });
      tick.style.left = `${((value - low) / (high - low)) * 100}%`;
      return tick;
    }));
    this.bar.ariaLabel = `colours from ${inWords(low, 2)} to ${inWords(high, 2)} ${unit}`;
  }

  showLegend(states) { // what the hatchings mean that are there: the picture's own and the mask's
    const isThere = { hidden: this.get("mask_style") === "hatched" && states.includes(HIDDEN), hole: states.includes(UNMEASURED) };
    const marks = this.get("marks") ?? [], names = Object.keys(MARKS).filter((name) => marks.includes(name) || isThere[name]);
    put(this.legend, "hidden", !names.length);
    const said = names.join();
    if (this.legendSaid === said) return;
    this.legendSaid = said;
    this.legend.replaceChildren(...names.map((name) => make("span", {}, swatch(name), MARKS[name])));
  }

  draw(states) {
    const { canvas } = this, [height, width] = this.get("size"), grid = this.grid, ratio = window.devicePixelRatio || 1;
    put(canvas.parentNode.style, "aspectRatio", `${width || 4} / ${height || 3}`);
    const wide = Math.round(canvas.parentNode.clientWidth * ratio), tall = Math.round((wide * height) / width);
    const picture = this.picture();
    if (!wide || !tall || !picture) return;
    put(canvas, "width", wide);
    put(canvas, "height", tall);
    const ctx = canvas.getContext("2d"), xs = edges(wide, grid[1]), ys = edges(tall, grid[0]);
    const box = (patch, spare = 0) => {
      const row = Math.floor(patch / grid[1]), column = patch % grid[1];
      const [w, h] = [xs[column + 1] - xs[column], ys[row + 1] - ys[row]];
      return [xs[column] + spare, ys[row] + spare, w - 2 * spare, h - 2 * spare];
    };
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(picture, 0, 0, wide, tall);
    this.drawMask(ctx, states, box, ratio);
    if (this.get("show_grid")) this.drawGrid(ctx, xs, ys, ratio);
    this.drawHeat(ctx, box);
    this.drawPainted(ctx, box, ratio);
    this.drawArrows(ctx, box, ratio);
    this.drawMarks(ctx, states, box, xs, ys, ratio);
  }

  drawMask(ctx, states, box, ratio) {
    const cover = (state) => {
      ctx.beginPath();
      states.forEach((found, patch) => { if (found === state) ctx.rect(...box(patch)); });
    };
    const pattern = (colors, rising) => {
      const key = `tile ${rising}`, period = Math.max(4, Math.round(8 * ratio));
      if (this.kept.get(key)?.width !== period) this.kept.set(key, hatching(colors, rising, period));
      return ctx.createPattern(this.kept.get(key), "repeat");
    };
    cover(UNMEASURED);
    ctx.fillStyle = pattern(HOLE_COLORS, true);
    ctx.fill();
    const look = this.get("mask_style");
    if (look === "none") return;
    cover(HIDDEN);
    ctx.fillStyle = look === "dim" ? `rgba(${HIDDEN_COLORS[0]},${DIM_OPACITY})` : pattern(HIDDEN_COLORS, false);
    ctx.fill();
    if (look === "dim" || box(0)[2] < 6 * ratio) return;
    ctx.beginPath(); // outlines, so that hidden patches can be counted
    states.forEach((found, patch) => { if (found === HIDDEN) ctx.rect(...box(patch, 0.5)); });
    ctx.strokeStyle = "rgba(205,207,210,0.3)";
    ctx.lineWidth = 1;
    ctx.stroke();
  }

  drawGrid(ctx, xs, ys, ratio) {
    const thick = Math.max(1, Math.round(ratio)), { width, height } = ctx.canvas;
    ctx.fillStyle = "rgba(255,255,255,0.35)";
    for (const x of xs.slice(1, -1)) ctx.fillRect(x, 0, thick, height);
    for (const y of ys.slice(1, -1)) ctx.fillRect(0, y, width, thick);
  }

  drawHeat(ctx, box) {
    const rgba = this.heat();
    if (!rgba) return;
    ctx.globalAlpha = this.get("heat_opacity");
    for (let patch = 0; patch < rgba.length / 4; patch++) {
      if (!rgba[4 * patch + 3]) continue;
      ctx.fillStyle = `rgb(${rgba.subarray(4 * patch, 4 * patch + 3)})`;
      ctx.fillRect(...box(patch));
    }
    ctx.globalAlpha = 1;
  }

  drawPainted(ctx, box, ratio) { // a small corner on what was painted by hand
    const painted = asBytes(this.get("painted"));
    if (!this.get("can_paint") || painted.length !== this.count) return;
    ctx.beginPath();
    painted.forEach((value, patch) => {
      const [x, y, w] = box(patch), side = Math.max(3 * ratio, Math.min(8 * ratio, 0.36 * w));
      if (!value && !this.stroke?.patches.has(patch)) return;
      ctx.moveTo(x + w - side, y); ctx.lineTo(x + w, y); ctx.lineTo(x + w, y + side); ctx.closePath();
    });
    ctx.fillStyle = "#ffb000";
    ctx.fill();
    ctx.strokeStyle = AROUND;
    ctx.lineWidth = ratio;
    ctx.stroke();
  }

  drawArrows(ctx, box, ratio) { // curved, from a dot in one patch to the border of another
    const middle = (patch) => { const [x, y, w, h] = box(patch); return [x + w / 2, y + h / 2]; };
    const arrows = [...this.get("arrows")].sort((a, b) => (a.weight ?? 1) - (b.weight ?? 1)); // the strongest on top
    for (const { from, to, weight = 1, color = "#ffb000" } of arrows) {
      if (from === to) continue;
      const [ax, ay] = middle(from), [mx, my] = middle(to);
      const cx = (ax + mx) / 2 + 0.18 * (my - ay), cy = (ay + my) / 2 - 0.18 * (mx - ax);
      const far = Math.hypot(mx - cx, my - cy), dx = (mx - cx) / far, dy = (my - cy) / far;
      const short = Math.min(0.55 * box(to)[2], far / 2);
      const bx = mx - dx * short, by = my - dy * short;
      const wanted = (1.5 + 4.5 * weight) * ratio, point = 4 * ratio + 2.2 * wanted; // a neighbour's arrow is short:
      const fits = Math.min(1, (0.42 * Math.hypot(bx - ax, by - ay)) / point); // its head must leave it a shaft
      const width = wanted * fits, head = point * fits, nx = bx - dx * head, ny = by - dy * head;
      for (const [ink, extra] of [[AROUND, 2 * ratio], [color, 0]]) {
        ctx.strokeStyle = ctx.fillStyle = ink;
        ctx.lineWidth = width + extra;
        ctx.beginPath(); ctx.moveTo(ax, ay); ctx.quadraticCurveTo(cx, cy, nx, ny); ctx.stroke();
        ctx.beginPath(); ctx.moveTo(bx, by);
        ctx.lineTo(nx - dy * head * 0.5, ny + dx * head * 0.5); ctx.lineTo(nx + dy * head * 0.5, ny - dx * head * 0.5);
        ctx.closePath();
        ctx.moveTo(ax + width, ay); ctx.arc(ax, ay, width, 0, 7);
        ctx.lineWidth = extra;
        if (extra) ctx.stroke();
        ctx.fill();
      }
    }
  }

  drawMarks(ctx, states, box, xs, ys, ratio) { // selection, hover, brush and lasso
    const outline = ([x, y, w, h], color, thick) => {
      for (const [ink, line] of [[AROUND, thick + 2], [color, thick]]) {
        ctx.strokeStyle = ink;
        ctx.lineWidth = line * ratio;
        ctx.strokeRect(x + ratio, y + ratio, w - 2 * ratio, h - 2 * ratio);
      }
    };
    for (const patch of this.get("selection")) if (patch < states.length) outline(box(patch), SELECTED, 2);
    const hover = this.get("hover"), isBrush = this.paints && this.get("shape") === "brush";
    if (this.isLive && this.pointer && isBrush && hover >= 0) {
      const { left, top, right, bottom } = footprint(this.pointer, this.get("brush"), this.grid);
      outline([xs[left], ys[top], xs[right] - xs[left], ys[bottom] - ys[top]], "#fff", 2);
    } else if (hover >= 0 && hover < states.length) outline(box(hover), "#fff", 2);
    if (!this.stroke || this.get("shape") !== "lasso") return;
    const [rows, columns] = this.grid, { width, height } = ctx.canvas;
    ctx.beginPath();
    for (const [x, y] of this.stroke.path) ctx.lineTo((x * width) / columns, (y * height) / rows);
    for (const [ink, dash] of [[AROUND, []], ["#fff", [5 * ratio, 4 * ratio]]]) {
      ctx.strokeStyle = ink;
      ctx.lineWidth = 2 * ratio;
      ctx.setLineDash(dash);
      ctx.stroke();
    }
    ctx.setLineDash([]);
  }
}

export default {
  render({ model, el }) {
    const view = new PatchView(model, el);
    return () => view.remove();
  },
};
