// What the living page shows, from what it carries: unpacking, pictures, masks, patch means and clouds. No page in here.
//
// Depth comes in whole steps and differences, see mask3d_viz/packing.py; each frame and each prediction is unpacked when it
// is first asked for. living_page.js comes after this and moves it.

const DATA = JSON.parse(document.getElementById("data").textContent);
const { size: [HEIGHT, WIDTH], patch: SIDE, ladder: LADDER } = DATA;
const PIXELS = HEIGHT * WIDTH, COLUMNS = WIDTH / SIDE, PATCHES = (HEIGHT / SIDE) * COLUMNS;
const NOTHING = 65535; // rank of a patch that holds no measured pixel
const SEEN = 0, PREDICTED = 1, NEVER_MEASURED = 2; // as in style.py
const MODALITIES = ["rgb", "depth"];
const ARROW_COLORS = DATA.arrow_colors;
const TOP = 10, MOVE_STEP = 1e-4;
const NOBODY = -1;

const viewOf = (array) => new DataView(array.buffer, array.byteOffset, array.byteLength);

// ---- unpacking

function bytesOf(base64) {
  const letters = atob(base64), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function inflate(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Whole numbers of one or more pictures, as packing.unpack.
async function unpack(base64, count = 1) {
  const bytes = await inflate(base64), total = count * PIXELS, numbers = new Uint16Array(total);
  for (let start = 0; start < total; start += PIXELS) {
    for (let row = 0, at = start; row < HEIGHT; row++) {
      for (let column = 0; column < WIDTH; column++, at++) {
        const left = column ? numbers[at - 1] : 0, above = row ? numbers[at - WIDTH] : 0;
        const corner = row && column ? numbers[at - WIDTH - 1] : 0, sum = left + above - corner;
        const low = left < above ? left : above, high = left < above ? above : left;
        const code = bytes[at] | (bytes[total + at] << 8);
        numbers[at] = (sum < low ? low : sum > high ? high : sum) + ((code >> 1) ^ -(code & 1));
      }
    }
  }
  return numbers;
}

function inMetres(steps, step) {
  const metres = new Float32Array(steps.length);
  for (let i = 0; i < steps.length; i++) metres[i] = steps[i] * step;
  return metres;
}

// Red, green, blue planes as pixels.
function interleaved(planes) {
  const rgb = new Uint8Array(3 * PIXELS);
  for (let i = 0; i < PIXELS; i++) for (let k = 0; k < 3; k++) rgb[3 * i + k] = planes[k * PIXELS + i];
  return rgb;
}

// ---- frames and predictions, unpacked when first asked for

const once = new Map();
function remembered(key, build) {
  if (!once.has(key)) once.set(key, build());
  return once.get(key);
}

const holes = () => remembered("holes", async () => interleaved(await unpack(DATA.hole, 3)));
const guesses = () => remembered("guesses", async () => interleaved(await unpack(DATA.guessed, 3)));

const frameOf = (number) => remembered(`frame ${number}`, async () => {
  const packed = DATA.frames[number], truth = await unpack(packed.truth, 2);
  const numbers = async (base64, Kind) => new Kind((await inflate(base64)).buffer);
  const frame = { number, packed, color: interleaved(await unpack(packed.color, 3)), holes: await holes(), guessed: await guesses(),
                  truth: inMetres(truth.subarray(0, PIXELS), packed.step), isValid: Uint8Array.from(truth.subarray(PIXELS)),
                  ranks: {}, painted: {}, pixel: Uint32Array.from({ length: PIXELS }, (_, i) => i) };
  for (const name of MODALITIES) {
    frame.ranks[name] = await numbers(packed.ranks[name], Uint16Array);
    frame.painted[name] = await numbers(packed.painted[name], Uint8Array);
  }
  frame.measured = frame.pixel.filter((i) => frame.isValid[i]);
  frame.truthPicture = depthPicture(frame.truth, frame, frame.isValid);
  frame.edges = grazing(frame, frame.truth, frame.isValid);
  frame.truthCloud = cloudOf(frame, frame.truth, frame.measured);
  return frame;
});

const cellOf = (number, i, j) => remembered(`cell ${number} ${i} ${j}`, async () => {
  const packed = DATA.frames[number].cells[i][j];
  if (!packed) return null;
  const cell = { packed, prediction: inMetres(await unpack(packed.prediction), packed.step) };
  if (packed.influence) cell.influence = new Int16Array((await inflate(packed.influence)).buffer);
  return cell;
});

// ---- what follows from them

// A prediction over what was never measured, as images.where_never_measured.
function overHoles(picture, frame) {
  const { guessed } = frame, share = DATA.guessed_share;
  for (let i = 0; i < picture.length; i++) {
    if (!frame.isValid[Math.floor(i / 3)]) picture[i] = Math.round((1 - share) * picture[i] + share * guessed[i]);
  }
  return picture;
}

function colored(values, low, high, palette, isShown, other) {
  const rgb = new Uint8Array(3 * PIXELS), scale = 255 / (high - low);
  for (let i = 0; i < PIXELS; i++) {
    const isHere = !isShown || isShown[i], from = isHere ? palette : other;
    const at = isHere ? 3 * Math.min(255, Math.max(0, Math.round((values[i] - low) * scale))) : 3 * i;
    rgb[3 * i] = from[at]; rgb[3 * i + 1] = from[at + 1]; rgb[3 * i + 2] = from[at + 2];
  }
  return rgb;
}

const palettes = { depth: bytesOf(DATA.palettes.depth), error: bytesOf(DATA.palettes.error) };
const depthPicture = (depth, frame, isShown) => colored(depth, ...frame.packed.limits, palettes.depth, isShown, frame.holes);

function errorPicture(prediction, frame) {
  const error = prediction.map((value, i) => value - frame.truth[i]), end = frame.packed.error_end;
  return colored(error, -end, end, palettes.error, frame.isValid, frame.holes);
}

// Each patch of one modality: 1 hidden, 0 seen; 2 nothing was measured there.
function masked(frame, name, rung) {
  const hidden = frame.packed.hidden[name][rung];
  return Uint8Array.from(frame.ranks[name], (rank, k) =>
    (rank === NOTHING ? 2 : frame.painted[name][k] ? Number(frame.painted[name][k] === 1) : Number(rank < hidden)));
}

const patchOf = (pixel) => Math.floor(Math.floor(pixel / WIDTH) / SIDE) * COLUMNS + Math.floor((pixel % WIDTH) / SIDE);

function provenance(frame, isMasked) {
  return Uint8Array.from(frame.isValid, (valid, i) => (!valid ? NEVER_MEASURED : isMasked[patchOf(i)] ? PREDICTED : SEEN));
}

// Means over each patch's measured pixels; the prediction's over all its pixels where none was measured.
function patchMeans(frame, prediction) {
  const sums = { count: 0, truth: 0, prediction: 0, everywhere: 0 };
  for (const name in sums) sums[name] = new Float64Array(PATCHES);
  for (let i = 0; i < PIXELS; i++) {
    const k = patchOf(i);
    if (prediction) sums.everywhere[k] += prediction[i];
    if (!frame.isValid[i]) continue;
    sums.count[k] += 1;
    sums.truth[k] += frame.truth[i];
    if (prediction) sums.prediction[k] += prediction[i];
  }
  const truth = sums.truth.map((sum, k) => (sums.count[k] ? sum / sums.count[k] : NaN));
  const mean = sums.prediction.map((sum, k) => (
    !prediction ? NaN : sums.count[k] ? sum / sums.count[k] : sums.everywhere[k] / (SIDE * SIDE)));
  return { truth, prediction: mean, error: mean.map((value, k) => value - truth[k]) };
}

// ---- clouds

// The angle, in degrees, that a step of depth to a nearer neighbour would need; as point_cloud.grazing_angle.
function grazing(frame, depth, isValid) {
  const [fx, fy] = frame.packed.intrinsics, steepest = new Float32Array(PIXELS);
  const compare = (i, j, focal) => {
    if (isValid && !(isValid[i] && isValid[j])) return;
    const tangent = (depth[j] - depth[i]) * focal / Math.max(Math.min(depth[i], depth[j]), 1e-6);
    if (tangent > steepest[j]) steepest[j] = tangent;
    if (-tangent > steepest[i]) steepest[i] = -tangent;
  };
  for (let i = 0; i < PIXELS; i++) {
    if (i + WIDTH < PIXELS) compare(i, i + WIDTH, fy);
    if ((i + 1) % WIDTH) compare(i, i + 1, fx);
  }
  return steepest.map((tangent) => Math.atan(tangent) * 180 / Math.PI);
}

// Where either surface steps, so that the same pixels fly on both sides; as depth_clouds.both_clouds.
function edgesOf(frame, prediction) {
  return grazing(frame, prediction).map((edge, i) => Math.max(edge, frame.edges[i]));
}

function cloudOf(frame, depth, pixel) {
  const [fx, fy, cx, cy] = frame.packed.intrinsics;
  const positions = new Float32Array(3 * pixel.length), color = new Uint8Array(3 * pixel.length);
  for (let k = 0; k < pixel.length; k++) {
    const i = pixel[k], z = depth[i];
    positions[3 * k] = ((i % WIDTH) - cx) / fx * z;
    positions[3 * k + 1] = (Math.floor(i / WIDTH) - cy) / fy * z;
    positions[3 * k + 2] = z;
    for (let axis = 0; axis < 3; axis++) color[3 * k + axis] = frame.color[3 * i + axis];
  }
  return { positions: viewOf(positions), pixel: viewOf(pixel), color: viewOf(color) };
}

function cloudValues(frame, pixel, depth, prediction) { // the channels depth (m) and error (mm)
  const values = new Float32Array(2 * pixel.length).fill(NaN);
  for (let k = 0; k < pixel.length; k++) {
    const i = pixel[k];
    values[k] = depth[i];
    if (prediction && frame.isValid[i]) values[pixel.length + k] = 1000 * (prediction[i] - frame.truth[i]);
  }
  return viewOf(values);
}

// Where an arrow begins or ends: the middle of what a patch holds, by the truth or else by the prediction.
function middleOf(frame, depth, patch) {
  const rows = Math.floor(patch / COLUMNS) * SIDE, columns = (patch % COLUMNS) * SIDE, found = [];
  for (let r = 0; r < SIDE; r++) {
    for (let c = 0; c < SIDE; c++) {
      const i = (rows + r) * WIDTH + columns + c;
      found.push([frame.isValid[i] ? frame.truth[i] : depth[i], i]);
    }
  }
  found.sort((a, b) => a[0] - b[0]);
  const [z] = found[found.length >> 1], centre = (rows + (SIDE >> 1)) * WIDTH + columns + (SIDE >> 1);
  const [fx, fy, cx, cy] = frame.packed.intrinsics;
  return [((centre % WIDTH) - cx) / fx * z, (Math.floor(centre / WIDTH) - cy) / fy * z, z];
}
