// The living page: two sliders over a computed ladder of masks, pictures and clouds without Python and without a network.
//
// The page's builder puts page_model.js, patch_image.js, point_cloud.js and living_page_data.js before this code. One state
// says which frame, which rung of each slider and which patches; everything on the page follows from it.

const byId = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(1000 * share) / 10}\u00a0%`;

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function inWords(value, digits, isSigned = false) {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value < 0 ? "\u2212" : isSigned ? "+" : "") + text;
}

// ---- the state, and what follows

const NAMES = { rgb: "Colour seen", depth: "Depth seen", prediction: "Prediction", truth: "Truth",
                error: "Error: prediction \u2212 truth" };
const state = { frame: 0, rgb: LADDER.start[0], depth: LADDER.start[1], hover: -1, selection: [...DATA.selection] };
const pictures = {}, sliders = {};
let cloud, asked = 0, now = null; // now: what is shown, { frame, cell, masks, means }

function change(values) {
  const before = { ...state };
  Object.assign(state, values);
  if (!now) return;
  if (["frame", "rgb", "depth"].some((name) => state[name] !== before[name])) return void show();
  if (state.selection !== before.selection) showSelection();
  else if (state.hover !== before.hover) showHover();
}

async function show() {
  const mine = ++asked, { frame: number, rgb, depth } = state;
  const isOtherFrame = now?.frame.number !== number;
  if (!isOtherFrame) showMasks(now.frame); // at once; the prediction follows in a few milliseconds
  const frame = await frameOf(number), cell = await cellOf(number, rgb, depth);
  if (mine !== asked) return; // the hand has moved on
  now = { frame, cell, masks: {}, means: patchMeans(frame, cell?.prediction) };
  for (const name of MODALITIES) now.masks[name] = masked(frame, name, state[name]);
  if (isOtherFrame) showFrame(frame);
  showMasks(frame);
  showPrediction();
  showEvidence();
  showMap();
  showPatch();
  await new Promise(requestAnimationFrame); // the pictures first; a fast hand skips the clouds
  if (mine !== asked && !isOtherFrame) return;
  showCloud(isOtherFrame);
  showSelection();
  document.documentElement.dataset.shown = `${number} ${rgb} ${depth}`;
}

function setAll(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
}

function showFrame(frame) {
  const bar = { bar_palette: viewOf(palettes.depth), bar_range: frame.packed.limits, bar_unit: "m" };
  const marks = frame.measured.length < PIXELS ? ["hole"] : [];
  setAll(pictures.rgb, { pixels: viewOf(frame.color) });
  setAll(pictures.depth, { pixels: viewOf(frame.truthPicture), marks, ...bar });
  setAll(pictures.truth, { pixels: viewOf(frame.truthPicture), marks, ...bar });
  setAll(pictures.prediction, bar);
  const end = frame.packed.error_end;
  setAll(pictures.error, { marks, bar_palette: viewOf(palettes.error), bar_range: [-end, end], bar_unit: "m" });
  for (const name of MODALITIES) {
    setAll(pictures[name], { rank: viewOf(frame.ranks[name]), painted: viewOf(frame.painted[name]) });
  }
  for (const button of byId("frames").children) button.setAttribute("aria-pressed", button.value === String(frame.number));
}

function showMasks(frame) {
  for (const name of MODALITIES) {
    pictures[name].set("hidden_count", frame.packed.hidden[name][state[name]]);
    const states = masked(frame, name, state[name]), measured = states.filter((found) => found !== 2).length;
    const seen = `${states.filter((found) => found === 0).length} of ${measured} patches left`;
    const { input, words } = sliders[name], share = percent(LADDER[name][state[name]]);
    input.value = state[name];
    input.ariaValueText = `${share} hidden, ${seen}`;
    words.replaceChildren(make("strong", {}, share), ` hidden, ${seen}`);
  }
}

function showPrediction() {
  const { frame, cell } = now;
  const assumed = cell?.packed.is_scale_assumed ? "scale assumed: no depth seen" : "";
  const note = cell ? assumed : "nothing is visible to predict from";
  const drawn = cell ? overHoles(depthPicture(cell.prediction, frame), frame) : frame.holes;
  const marks = !cell ? ["hole"] : frame.measured.length < PIXELS ? ["guessed"] : [];
  setAll(pictures.prediction, { pixels: viewOf(drawn), note, marks });
  setAll(pictures.error, { pixels: viewOf(cell ? errorPicture(cell.prediction, frame) : frame.holes), note: cell ? "" : note });
}

function showCloud(isOtherFrame) {
  const { frame, cell } = now, kind = provenance(frame, now.masks.depth);
  const put = (index, values) => setAll(cloud, Object.fromEntries(
    Object.entries(values).map(([name, value]) => [`${name}_${index}`, value])));
  if (isOtherFrame) {
    const { views, error_end: end, limits } = frame.packed, view = cloud.get("view");
    setAll(cloud, { views, channels: cloud.get("channels").map((channel) => (
      { ...channel, range: channel.name === "depth" ? limits : [-1000 * end, 1000 * end] })) });
    if (views[view]) cloud.set("camera", views[view]); // else the reader's own camera stays
    put(0, frame.truthCloud);
  }
  if (cell) cell.edges ??= edgesOf(frame, cell.prediction);
  const edges = cell?.edges ?? frame.edges;
  put(0, { kind: viewOf(kind.filter((_, i) => frame.isValid[i])), edge: viewOf(edges.filter((_, i) => frame.isValid[i])),
           values: cloudValues(frame, frame.measured, frame.truth, cell?.prediction) });
  const none = viewOf(new Uint8Array(0));
  if (!cell) return put(1, { positions: none, pixel: none, color: none, kind: none, values: none, edge: none });
  cell.cloud ??= cloudOf(frame, cell.prediction, frame.pixel);
  put(1, { ...cell.cloud, kind: viewOf(kind), edge: viewOf(edges),
           values: cloudValues(frame, frame.pixel, cell.prediction, cell.prediction) });
}

// ---- numbers

function bestOf(rows, name, isLower) {
  const known = rows.map(([, scores]) => scores[name]).filter((value) => value !== undefined);
  return isLower ? Math.min(...known) : Math.max(...known);
}

function showEvidence() {
  const { cell } = now, body = byId("evidence-rows"), note = byId("evidence-note");
  const rows = cell ? [["Mask3D", cell.packed.scores],
    ...Object.entries(cell.packed.opponents).map(([name, scores]) => [DATA.opponents[name], scores])]
    .filter(([, scores]) => scores.mae !== undefined) : [];
  const columns = [["mae", 1, 100, true], ["abs_rel", 3, 1, true], ["delta1", 3, 1, false]];
  body.replaceChildren(...rows.map(([name, scores], i) => make("tr", { className: i ? "" : "ours" },
    make("th", { scope: "row" }, name), ...columns.map(([key, digits, factor, isLower]) => {
      const text = (scores[key] * factor).toFixed(digits), best = bestOf(rows, key, isLower);
      const isBest = text === (best * factor).toFixed(digits);
      return make("td", { className: isBest ? "best" : "" }, text);
    }))));
  byId("evidence-table").hidden = !rows.length;
  note.textContent = !cell ? "Nothing is visible, so there is nothing to predict from."
    : !now.frame.measured.length ? "The sensor measured nothing in this frame, so there is nothing to score."
    : !rows.length ? "Nothing that was measured is hidden, so there is nothing to score: hide some depth."
    : rows.length === 1 ? "No depth is visible: interpolation has nothing to start from, the network has colour alone."
    : "Over the hidden measured pixels of this one frame. Best of each column marked.";
}

function errorOf(packed) {
  return packed?.scores.mae;
}

function isBeaten(packed) { // some interpolation has the smaller mean error
  return Object.values(packed?.opponents ?? {}).some(({ mae }) => mae < packed.scores.mae);
}

function buildMap() {
  const table = byId("map"), head = make("tr", {}, make("td"), ...LADDER.depth.map((ratio) =>
    make("th", { scope: "col" }, percent(ratio))));
  table.tHead.append(head);
  LADDER.rgb.forEach((rgb, i) => {
    const row = make("tr", {}, make("th", { scope: "row" }, percent(rgb)));
    LADDER.depth.forEach((depth, j) => {
      const button = make("button", { type: "button", value: `${i} ${j}` }, make("span"));
      button.addEventListener("click", () => change({ rgb: i, depth: j }));
      row.append(make("td", {}, button));
    });
    table.tBodies[0].append(row);
  });
  table.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !event.target.value) return;
    event.preventDefault();
    const [i, j] = [state.rgb + step[0], state.depth + step[1]];
    if (i < 0 || j < 0 || i >= LADDER.rgb.length || j >= LADDER.depth.length) return;
    change({ rgb: i, depth: j });
    table.querySelector(`button[value="${i} ${j}"]`).focus();
  });
}

function showMap() {
  const { cells } = now.frame.packed, errors = cells.flat().map(errorOf).filter((value) => value > 0);
  const low = Math.log(Math.min(...errors)), span = Math.max(1e-6, Math.log(Math.max(...errors)) - low);
  for (const button of byId("map").querySelectorAll("button")) {
    const [i, j] = button.value.split(" ").map(Number), packed = cells[i][j], error = errorOf(packed);
    const isHere = i === state.rgb && j === state.depth, text = error === undefined ? "\u2013" : (100 * error).toFixed(1);
    const shade = error > 0 ? Math.round(6 + 40 * (Math.log(error) - low) / span) : 0;
    button.style.setProperty("--shade", `${shade}%`);
    button.firstChild.textContent = text;
    button.classList.toggle("beaten", isBeaten(packed));
    button.classList.toggle("asked", Boolean(packed?.influence));
    button.setAttribute("aria-pressed", isHere);
    button.tabIndex = isHere ? 0 : -1;
    button.ariaLabel = `${percent(LADDER.rgb[i])} of colour and ${percent(LADDER.depth[j])} of depth hidden: `
      + `${error === undefined ? "nothing to score" : `${text} cm`}${isBeaten(packed) ? ", interpolation is better" : ""}`
      + `${packed?.influence ? ", influence was measured" : ""}`;
  }
}

// ---- one selection everywhere

function showHover() {
  for (const model of [...Object.values(pictures), cloud]) model.set("hover", state.hover);
  showPatch();
}

function showSelection() {
  for (const model of [...Object.values(pictures), cloud]) model.set("selection", state.selection);
  showArrows();
  showHover();
}

const place = (patch) => `row ${Math.floor(patch / COLUMNS) + 1}, column ${(patch % COLUMNS) + 1}`;

function influenceOf(patch) { // {share, top: [{name, patch, metres}]} or null
  const table = now?.cell?.influence;
  if (!table || patch === undefined) return null;
  const row = table.subarray(patch * (1 + 2 * TOP), (patch + 1) * (1 + 2 * TOP)), top = [];
  for (let k = 0; k < TOP; k++) {
    const code = row[1 + 2 * k];
    if (code === NOBODY) break;
    top.push({ name: code < PATCHES ? "rgb" : "depth", patch: code % PATCHES, metres: row[2 + 2 * k] * MOVE_STEP });
  }
  return { share: row[0] === NOBODY ? null : row[0] / 1000, top };
}

function showArrows() {
  const patch = state.selection[state.selection.length - 1], found = influenceOf(patch);
  const top = (found?.top ?? []).filter((one) => one.patch !== patch && one.metres);
  const end = Math.max(...top.map((one) => Math.abs(one.metres)), 1e-9), weight = (one) => Math.abs(one.metres) / end;
  for (const name of MODALITIES) {
    pictures[name].set("arrows", top.filter((one) => one.name === name).map((one) => (
      { from: one.patch, to: patch, weight: weight(one), color: ARROW_COLORS[name] })));
  }
  const depth = now.cell?.prediction;
  cloud.set("arrows", top.map((one) => ({ from: middleOf(now.frame, depth, one.patch), to: middleOf(now.frame, depth, patch),
                                          weight: weight(one), color: ARROW_COLORS[one.name] })));
}

function showPatch() {
  const chosen = state.selection[state.selection.length - 1], patch = state.hover >= 0 ? state.hover : chosen;
  const isThere = patch !== undefined && now;
  byId("patch-none").hidden = Boolean(isThere);
  byId("patch-facts").hidden = !isThere;
  byId("patch-title").textContent = isThere ? `Patch in ${place(patch)}` : "Click a patch";
  if (isThere) {
    const { truth, prediction, error } = now.means, seen = ["seen", "hidden", "nothing measured"];
    const metres = (value, missing) => (Number.isNaN(value) ? missing : `${value.toFixed(2)} m`);
    const facts = { colour: seen[now.masks.rgb[patch]], depth: seen[now.masks.depth[patch]],
                    truth: metres(truth[patch], "not measured"), prediction: metres(prediction[patch], "none"),
                    error: Number.isNaN(error[patch]) ? "\u2013" : `${inWords(100 * error[patch], 1, true)} cm` };
    for (const [name, value] of Object.entries(facts)) byId(`patch-${name}`).textContent = value;
  }
  showInfluence(chosen);
}

function showInfluence(chosen) {
  const box = byId("influence"), found = influenceOf(chosen);
  const key = `${now?.frame.number} ${state.rgb} ${state.depth} ${chosen}`;
  if (box.dataset.key === key) return; // a list that is read aloud is not written again while the hand moves
  box.dataset.key = key;
  box.hidden = chosen === undefined || !now?.cell;
  if (box.hidden) return box.replaceChildren();
  if (!found) {
    const near = nearestAsked();
    if (!near) return box.replaceChildren();
    const button = make("button", { type: "button", className: "plain" },
      `go to ${percent(LADDER.rgb[near[0]])} / ${percent(LADDER.depth[near[1]])}`);
    button.addEventListener("click", () => change({ rgb: near[0], depth: near[1] }));
    return box.replaceChildren(make("p", { className: "small" },
      "What this answer owes to each visible patch was measured where the map has a dot: ", button));
  }
  if (found.share === null) return box.replaceChildren(make("p", {}, "Nothing that is visible moves it."));
  const bar = make("div", { className: "share", role: "img", ariaLabel: "share from depth and from colour" });
  for (const [name, share] of [["depth", found.share], ["rgb", 1 - found.share]]) {
    const part = make("i");
    part.style.cssText = `width:${100 * share}%;background:${ARROW_COLORS[name]}`;
    bar.append(part);
  }
  const fromDepth = Math.round(100 * found.share);
  const list = make("ol", { className: "movers" }, ...found.top.map((one) => {
    const item = make("li", {}, make("i"), make("span", {}, `${one.name === "rgb" ? "colour" : "depth"}, ${place(one.patch)}`),
                      make("b", {}, `${inWords(100 * one.metres, Math.abs(one.metres) < 0.00095 ? 2 : 1, true)} cm`));
    item.firstChild.style.background = ARROW_COLORS[one.name];
    return item;
  }));
  const verdict = make("p", { className: "verdict" },
                       `${fromDepth}\u00a0% from depth, ${100 - fromDepth}\u00a0% from colour`);
  const words = "Each visible patch was taken away once. Without these the chosen patch moves most:";
  box.replaceChildren(make("div", {}, verdict, bar, make("p", { className: "small" }, words)), list);
}

function nearestAsked() {
  const found = [];
  now.frame.packed.cells.forEach((row, i) => row.forEach((packed, j) => {
    if (packed?.influence) found.push([i, j]);
  }));
  const far = ([i, j]) => Math.abs(i - state.rgb) + Math.abs(j - state.depth);
  return found.sort((a, b) => far(a) - far(b))[0];
}

// ---- building

function buildSlider(name) {
  const ratios = LADDER[name], host = byId(`slide-${name}`);
  const input = host.querySelector("input"), words = host.querySelector("output");
  input.max = ratios.length - 1;
  input.addEventListener("input", () => change({ [name]: Number(input.value) }));
  host.querySelector(".ticks").append(...ratios.map((ratio, i) => {
    const tick = make("span", {}, percent(ratio).replace("\u00a0%", ""));
    tick.style.setProperty("--at", i / (ratios.length - 1));
    tick.addEventListener("click", () => change({ [name]: i }));
    return tick;
  }));
  sliders[name] = { input, words };
}

async function buildFrames() {
  const host = byId("frames");
  host.hidden = DATA.frames.length < 2;
  DATA.frames.forEach(({ name }, number) => {
    const canvas = make("canvas", { width: WIDTH, height: HEIGHT }), label = `frame ${number + 1} of ${DATA.frames.length}`;
    const button = make("button", { type: "button", value: String(number), title: name, ariaLabel: `${label}: ${name}` }, canvas);
    button.addEventListener("click", () => change({ frame: number }));
    host.append(button);
  });
  for (const button of host.children) { // thumbnails come when the first picture stands
    const { color } = await frameOf(Number(button.value)), rgba = new Uint8ClampedArray(4 * PIXELS).fill(255);
    for (let i = 0; i < PIXELS; i++) rgba.set(color.subarray(3 * i, 3 * i + 3), 4 * i);
    button.firstChild.getContext("2d").putImageData(new ImageData(rgba, WIDTH, HEIGHT), 0, 0);
  }
}

function revived(traits) { // bytes come as {"base64": ...}
  return Object.fromEntries(Object.entries(traits).map(([name, value]) => (
    [name, value?.base64 === undefined ? value : viewOf(bytesOf(value.base64))])));
}

function buildViews() {
  const follow = (model) => {
    model.on("change:hover", (_, hover) => change({ hover }));
    model.on("change:selection", (_, selection) => change({ selection }));
  };
  for (const [name, label] of Object.entries(NAMES)) {
    const model = pictures[name] = new PageModel({ ...revived(DATA.picture), label, pixels: viewOf(new Uint8Array(3 * PIXELS)),
                                                   mask_style: MODALITIES.includes(name) ? "hatched" : "none" });
    PatchImage.render({ model, el: byId(`picture-${name}`) });
    follow(model);
  }
  cloud = new PageModel(revived(DATA.cloud));
  PointCloud.render({ model: cloud, el: byId("cloud") });
  follow(cloud);
}

function buildTries() {
  for (const button of byId("tries").querySelectorAll("button")) {
    const [rgb, depth] = button.value.split(" ").map(Number);
    button.addEventListener("click", () => {
      change({ rgb, depth });
      byId("controls").scrollIntoView({ block: "start", behavior: "auto" });
    });
  }
}

function buildTheme() {
  for (const input of document.querySelectorAll("#theme input")) {
    input.addEventListener("change", () => {
      if (input.value) document.documentElement.dataset.theme = input.value;
      else delete document.documentElement.dataset.theme;
    });
  }
}

async function begin() {
  buildTheme();
  ["rgb", "depth"].forEach(buildSlider);
  buildMap();
  buildTries();
  document.documentElement.classList.add("is-live");
  buildViews();
  await show();
  await buildFrames();
  showFrame(now.frame);
  document.documentElement.dataset.ready = "true";
}

window.livingPage = { state, pictures, get cloud() { return cloud; }, get now() { return now; }, change, cellOf, frameOf };
begin().catch((problem) => {
  document.documentElement.classList.remove("is-live");
  byId("failed").textContent = `This browser cannot move the page (${problem.message}); a newer one can. Below is what it `
    + "shows first.";
  byId("failed").hidden = false;
});
