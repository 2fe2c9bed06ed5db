// Pictures of the same frames at growing steps. All of them are in the browser, so that scrubbing needs no kernel.

const THUMB = 96; // pixels across in the strip

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function asBytes(value) {
  if (!value) return new Uint8Array(0);
  return new Uint8Array(value.buffer ?? value, value.byteOffset ?? 0, value.byteLength);
}

class Film {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.pictures = [];
    this.reading = 0;
    this.tiles = make("div", { className: "fs-tiles" });
    this.slider = make("input", { type: "range", min: 0, max: 0, step: 1, title: "arrow keys go a picture on or back" });
    this.slider.setAttribute("aria-label", "training step shown");
    this.output = make("output");
    this.play = make("button", { type: "button", textContent: "play", title: "from the first picture to the newest" });
    this.newest = make("button", { type: "button", textContent: "follow", title: "stay at the newest picture" });
    this.control = make("div", { className: "fs-control" }, this.play, this.slider, this.output, this.newest);
    this.caption = make("div", { className: "fs-caption" });
    this.caption.setAttribute("aria-live", "polite");
    this.strip = make("div", { className: "fs-strip", ariaHidden: "true" });
    this.empty = make("div", { className: "fs-empty", textContent: "No pictures yet: they come with every evaluation." });
    this.gone = make("div", { className: "fs-gone", hidden: true,
                              textContent: "kernel gone - run the cell again to follow on; these pictures can still be scrubbed" });
    this.root = make("div", { className: "film-strip" }, this.tiles, this.control, this.caption, this.strip, this.empty,
                     this.gone);
    this.root.setAttribute("role", "group");
    this.root.dataset.lmSuppressShortcuts = "true"; // arrow keys belong to the slider
    el.append(this.root);
    this.slider.addEventListener("input", () => { this.halt(); this.go(Number(this.slider.value)); });
    this.slider.addEventListener("keydown", (event) => event.stopPropagation());
    this.newest.addEventListener("click", () => { this.halt(); this.put(-1); });
    this.play.addEventListener("click", () => (this.timer ? this.halt() : this.run()));
    this.read = () => this.load();
    this.draw = () => this.show();
    this.look = () => { this.gone.hidden = !this.isGone; };
    for (const name of ["film", "fixed", "titles"]) model.on(`change:${name}`, this.read);
    for (const name of ["place", "captions", "label"]) model.on(`change:${name}`, this.draw);
    model.on("comm_live_update", this.look);
    this.load();
  }

  get isGone() {
    return this.model.comm_live === false || Boolean(this.el.closest(".jupyter-widgets-disconnected"));
  }

  get count() { return this.pictures.length; }

  get place() {
    const wanted = this.model.get("place");
    return wanted < 0 ? this.count - 1 : Math.min(wanted, this.count - 1);
  }

  put(place) {
    this.model.set("place", place);
    this.model.save_changes();
    this.show();
  }

  go(place) { this.put(place >= this.count - 1 ? -1 : Math.max(0, place)); }

  run() {
    let next = 0;
    this.play.setAttribute("aria-pressed", "true");
    const beat = () => {
      this.go(next);
      next += 1;
      if (next >= this.count) this.halt();
    };
    this.timer = setInterval(beat, Math.max(80, Math.min(400, 4000 / Math.max(1, this.count))));
    beat();
  }

  halt() {
    clearInterval(this.timer);
    this.timer = null;
    this.play.setAttribute("aria-pressed", "false");
  }

  async load() {
    const turn = ++this.reading, bytes = asBytes(this.model.get("film")), parts = [];
    let start = 0;
    for (const length of this.model.get("lengths")) {
      parts.push(bytes.slice(start, start + length));
      start += length;
    }
    if (start !== bytes.length) return; // the traits of one change come one after the other
    const fixed = asBytes(this.model.get("fixed"));
    const read = (part) => createImageBitmap(new Blob([part], { type: "image/jpeg" }));
    const [still, ...pictures] = await Promise.all([fixed.length ? read(fixed) : null, ...parts.map(read)]);
    if (turn !== this.reading) return; // newer ones are on their way
    [this.still, this.pictures] = [still, pictures];
    this.build();
    this.show();
  }

  build() {
    const [height, width] = this.model.get("size");
    this.canvases = this.model.get("titles").map((title) => {
      const canvas = make("canvas", { width, height });
      canvas.setAttribute("role", "img");
      return canvas;
    });
    this.tiles.replaceChildren(...this.canvases.map((canvas, i) => make(
      "figure", {}, make("figcaption", { textContent: this.model.get("titles")[i] }), canvas)));
    const step = Math.max(1, Math.round(THUMB * (height / Math.max(1, width))));
    this.thumbs = this.pictures.map((picture, i) => {
      const canvas = make("canvas", { width: THUMB, height: step, title: `step ${this.model.get("steps")[i]}` });
      canvas.getContext("2d").drawImage(picture, 0, 0, width, height, 0, 0, THUMB, step);
      canvas.addEventListener("click", () => { this.halt(); this.go(i); });
      return canvas;
    });
    this.strip.replaceChildren(...this.thumbs);
  }

  show() {
    const isEmpty = !this.count;
    this.root.setAttribute("aria-label", this.model.get("label"));
    for (const node of [this.tiles, this.control, this.caption, this.strip]) node.hidden = isEmpty;
    this.empty.hidden = !isEmpty;
    this.look();
    if (isEmpty) return;
    const [height, width] = this.model.get("size"), place = this.place, step = this.model.get("steps")[place];
    let moving = 0, standing = 0;
    this.model.get("is_changing").forEach((isMoving, i) => {
      const source = isMoving ? this.pictures[place] : this.still;
      const left = (isMoving ? moving++ : standing++) * width;
      const title = this.model.get("titles")[i];
      if (source && this.canvases[i]) {
        this.canvases[i].getContext("2d").drawImage(source, left, 0, width, height, 0, 0, width, height);
        this.canvases[i].setAttribute("aria-label", isMoving ? `${title} at step ${step}` : title);
      }
    });
    this.slider.max = this.count - 1;
    this.slider.value = place;
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.output.textContent = `step ${step}`;
    this.newest.setAttribute("aria-pressed", String(this.model.get("place") < 0));
    this.caption.textContent = this.model.get("captions")[place] ?? "";
    this.thumbs.forEach((thumb, i) => thumb.classList.toggle("is-here", i === place));
    const here = this.thumbs[place]; // scroll the strip alone, never the notebook
    if (here) this.strip.scrollLeft = here.offsetLeft - this.strip.offsetLeft - this.strip.clientWidth / 2 + 36;
  }

  close() {
    this.halt();
    this.reading += 1;
    for (const name of ["film", "fixed", "titles"]) this.model.off(`change:${name}`, this.read);
    for (const name of ["place", "captions", "label"]) this.model.off(`change:${name}`, this.draw);
    this.model.off("comm_live_update", this.look);
    this.root.remove();
  }
}

export default {
  render({ model, el }) {
    const film = new Film(model, el);
    return () => film.close();
  },
};
