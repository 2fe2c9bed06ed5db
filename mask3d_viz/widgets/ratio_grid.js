// A map over two ratios: cells to point at, walk through and choose. What is drawn comes ready made from Python.

const GONE = "kernel gone - run the cell again";
const KIND = ["is-unknown", "", "is-undefined", "is-undefined"];
const HATCH = ["", "is-behind", "is-lost"];
const NARROW = 52; // CSS pixels of a cell below which numbers are left out

const make = (tag, traits = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(traits)) {
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

const bytes = (view) => (view ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array());

class View {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.focused = -1;
    this.pointed = -1;
    this.cells = [];
    this.build();
    this.show = this.show.bind(this);
    this.scheduled = this.waiting = 0;
    this.schedule = () => {
      cancelAnimationFrame(this.scheduled);
      this.scheduled = requestAnimationFrame(this.show);
    };
    model.on("change", this.schedule);
    model.on("comm_live_update", this.schedule);
    this.observer = new ResizeObserver(this.schedule);
    this.observer.observe(this.root);
    this.watcher = new MutationObserver(this.schedule); // a notebook says on the elements around that its kernel is gone
    this.attach();
    this.show();
  }

  attach() { // JupyterLab renders first and attaches then
    if (!this.el.isConnected) {
      this.waiting = requestAnimationFrame(() => this.attach());
      return;
    }
    for (let e = this.el; e && !e.classList.contains("jp-OutputArea-output"); e = e.parentElement) {
      this.watcher.observe(e, { attributes: true, attributeFilter: ["class"] });
    }
  }

  get(name) { return this.model.get(name); }

  get isLive() { return this.model.comm_live ?? !this.el.closest(".jupyter-widgets-disconnected"); }

  build() {
    this.title = make("span", { className: "rg-title" });
    this.note = make("span", { className: "rg-note" });
    this.rowTitle = make("div", { className: "rg-row-title", ariaHidden: "true" });
    this.columnTitle = make("div", { className: "rg-column-title", ariaHidden: "true" });
    this.rows = make("div", { className: "rg-rows", ariaHidden: "true" });
    this.columns = make("div", { className: "rg-columns", ariaHidden: "true" });
    this.here = make("div", { className: "rg-here", title: "you are here" });
    this.grid = make("div", { className: "rg-cells", role: "grid" });
    this.strip = make("canvas", { width: 256, height: 1 });
    this.ticks = make("div", { className: "rg-ticks" });
    this.ends = [make("span"), make("span"), make("span")];
    this.bar = make("div", { className: "rg-bar" }, this.strip, this.ticks, make("div", { className: "rg-ends" }, ...this.ends));
    this.legend = make("div", { className: "rg-legend" });
    this.readout = make("div", { className: "rg-readout", "aria-live": "polite" });
    this.gone = make("div", { className: "rg-gone", role: "status" });
    this.root = make("div", { className: "ratio-grid", "data-lm-suppress-shortcuts": "true" },
      make("div", { className: "rg-head" }, this.title, this.note),
      make("div", { className: "rg-plot" }, this.rowTitle, this.rows, this.grid, this.columns, this.columnTitle),
      this.bar, this.legend, this.readout, this.gone);
    this.grid.addEventListener("keydown", (event) => this.press(event));
    this.grid.addEventListener("click", (event) => this.choose(this.cellOf(event.target)));
    this.grid.addEventListener("pointerover", (event) => this.point(this.cellOf(event.target)));
    this.grid.addEventListener("pointerleave", () => this.point(-1));
    this.grid.addEventListener("focusin", (event) => { this.focused = this.cellOf(event.target); this.point(-1); });
    this.grid.addEventListener("focusout", (event) => {
      if (!this.grid.contains(event.relatedTarget)) { this.focused = -1; this.say(); }
    });
    this.el.append(this.root);
  }

  cellOf(target) { return this.cells.indexOf(target.closest?.(".rg-cell")); }

  point(cell) {
    this.pointed = cell;
    this.say();
  }

  // The cell nearest to where the session stands.
  get home() {
    const [rows, columns] = this.get("size"), [x, y] = this.get("here");
    return x < 0 || !rows ? 0 : Math.min(rows - 1, Math.round(y)) * columns + Math.min(columns - 1, Math.round(x));
  }

  say() {
    const cell = [this.pointed, this.focused].find((k) => k >= 0);
    const isSomewhere = cell !== undefined || this.get("here")[0] >= 0;
    const words = isSomewhere ? this.get("readouts")[cell ?? this.home] ?? "" : "";
    const place = this.get("here").every((value) => Number.isInteger(value)) ? "you are here" : "nearest to here";
    const said = cell === undefined && words ? words.replace("\n", ` (${place})\n`) : words;
    if (this.readout.textContent !== said) this.readout.textContent = said;
  }

  choose(cell) {
    if (cell < 0 || !this.isLive) return;
    this.model.set("chosen", { number: (this.get("chosen").number ?? 0) + 1, cell });
    this.model.save_changes();
  }

  press(event) {
    const [rows, columns] = this.get("size"), at = this.cellOf(event.target);
    if (at < 0) return;
    let row = Math.floor(at / columns), column = at % columns;
    if (event.key === "ArrowRight") column += 1;
    else if (event.key === "ArrowLeft") column -= 1;
    else if (event.key === "ArrowUp") row += 1;
    else if (event.key === "ArrowDown") row -= 1;
    else if (event.key === "Home") column = 0;
    else if (event.key === "End") column = columns - 1;
    else if (event.key === "PageUp") row = rows - 1;
    else if (event.key === "PageDown") row = 0;
    else if (event.key === "Enter" || event.key === " ") this.choose(at);
    else return;
    event.preventDefault();
    event.stopPropagation();
    const next = Math.max(0, Math.min(rows - 1, row)) * columns + Math.max(0, Math.min(columns - 1, column));
    this.rove(next);
    this.cells[next].focus();
  }

  rove(cell) { this.cells.forEach((element, k) => { element.tabIndex = this.isLive && k === cell ? 0 : -1; }); }

  rebuild(rows, columns) {
    this.grid.replaceChildren();
    this.cells = new Array(rows * columns);
    for (let row = rows - 1; row >= 0; row -= 1) {
      const line = make("div", { className: "rg-row", role: "row" });
      for (let column = 0; column < columns; column += 1) {
        const cell = make("div", { role: "gridcell", tabIndex: -1 });
        cell.append(make("span", { className: "rg-text" }, make("span", { className: "rg-number" }),
                         make("span", { className: "rg-mark" })));
        this.cells[row * columns + column] = cell;
        line.append(cell);
      }
      this.grid.append(line);
    }
    this.grid.append(this.here);
    this.grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  }

  show() {
    const [rows, columns] = this.get("size"), isLive = this.isLive;
    if (this.cells.length !== rows * columns) this.rebuild(rows, columns);
    const colors = bytes(this.get("colors")), kinds = bytes(this.get("kinds")), hatches = bytes(this.get("hatches"));
    const texts = this.get("texts"), marks = this.get("marks"), readouts = this.get("readouts");
    this.cells.forEach((cell, k) => {
      const color = [...colors.slice(3 * k, 3 * k + 3)];
      const isPale = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140;
      cell.className = `rg-cell ${KIND[kinds[k]] ?? ""} ${HATCH[hatches[k]] ?? ""}`;
      cell.style.setProperty("--rg-fill", `rgb(${color.join(",")})`);
      cell.style.setProperty("--rg-on", isPale ? "#14161a" : "#fff");
      cell.style.setProperty("--rg-stripe", isPale ? "rgba(20,22,26,.62)" : "rgba(255,255,255,.62)");
      const [number, mark] = cell.firstChild.children;
      number.textContent = texts[k] ?? "";
      mark.textContent = marks[k] ?? "";
      cell.setAttribute("aria-label", readouts[k] ?? "");
    });
    const home = this.home;
    this.rove(this.focused >= 0 ? this.focused : home);
    this.cells.forEach((cell, k) => (k === home ? cell.setAttribute("aria-current", "location")
      : cell.removeAttribute("aria-current")));
    this.label(this.rows, [...this.get("rows")].reverse());
    this.label(this.columns, this.get("columns"));
    this.rowTitle.textContent = this.get("row_title");
    this.columnTitle.textContent = this.get("column_title");
    this.title.textContent = this.get("title");
    this.note.textContent = this.get("note");
    this.legend.textContent = this.get("legend");
    this.grid.setAttribute("aria-label", `${this.get("title")}, ${this.get("row_title")} upwards, ${this.get("column_title")} `
      + "to the right. Arrow keys move, Enter goes there.");
    const [x, y] = this.get("here");
    this.here.style.display = x < 0 ? "none" : "";
    this.here.style.left = `${(100 * (x + 0.5)) / columns}%`;
    this.here.style.width = `${100 / columns}%`;
    this.here.style.top = `${(100 * (rows - 0.5 - y)) / rows}%`;
    this.showBar();
    this.gone.textContent = isLive ? "" : GONE;
    this.root.classList.toggle("is-gone", !isLive);
    this.root.classList.toggle("is-narrow", this.grid.clientWidth / Math.max(1, columns) < NARROW);
    this.root.style.maxWidth = `${this.get("max_width")}px`;
    this.say();
  }

  label(element, texts) {
    if (element.textContent !== texts.join("")) element.replaceChildren(...texts.map((text) => make("span", { textContent: text })));
  }

  showBar() {
    const palette = bytes(this.get("palette"));
    this.bar.hidden = palette.length !== 768;
    if (this.bar.hidden) return;
    const context = this.strip.getContext("2d"), row = context.createImageData(256, 1);
    for (let k = 0; k < 256; k += 1) row.data.set([...palette.slice(3 * k, 3 * k + 3), 255], 4 * k);
    context.putImageData(row, 0, 0);
    this.ticks.replaceChildren(...this.get("ticks").map(([at, text]) => {
      const tick = make("span", { textContent: text });
      tick.style.left = `${100 * at}%`;
      return tick;
    }));
    const [low, high] = this.get("ends");
    [low && `← ${low}`, this.get("bar_label"), high && `${high} →`].forEach((text, k) => { this.ends[k].textContent = text; });
  }

  remove() {
    cancelAnimationFrame(this.scheduled);
    cancelAnimationFrame(this.waiting);
    this.observer.disconnect();
    this.watcher.disconnect();
    this.model.off("change", this.schedule);
    this.model.off("comm_live_update", this.schedule);
    this.root.remove();
  }
}

export default {
  render({ model, el }) {
    const view = new View(model, el);
    return () => view.remove();
  },
};
