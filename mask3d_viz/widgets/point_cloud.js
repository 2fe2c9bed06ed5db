// One or two point clouds under one camera: one canvas, one WebGL2 context, nothing imported.
//
// A frame is drawn in two passes. The first draws every point into a picture of colours, a picture of numbers (point
// and patch) and a depth picture; the second shades by depth (the eye-dome lighting of mask3d_viz.clouds) and dims or
// outlines patches. So hovering and choosing cost only the second pass, picking is a look-up, and mode, range, palette
// and selection are uniforms and small textures.
// Lengths on the page are CSS pixels; rows go down; the camera looks along z with x right and y down.

const NO_VALUE = [168, 171, 176]; // style.NO_ERROR_COLOR
const DIMMED = 0.55; // as in point_cloud.py
const FLAT = "0.008"; // a step of log2(depth) between the discs of one slanted surface is no edge
const GAP = 8; // between the panes
const NARROW = 520; // below this width the panes stand one above the other
const PICK_RADIUS = 8;
const VIEWS = [["camera", "Camera"], ["three-quarter", "Three-quarter"], ["front", "Front"], ["top", "Top"]];
const LAYOUTS = [["side", "side by side"], ["wipe", "curtain"], ["blink", "blink"]];
const ARRAYS = { positions: Float32Array, pixel: Uint32Array, color: Uint8Array, kind: Uint8Array,
                 values: Float32Array, edge: Float32Array };
const DATA = ["0", "1"].flatMap((index) => Object.keys(ARRAYS).map((name) => `${name}_${index}`));

// ---- shaders

const POINT_VERTEX = `#version 300 es
precision highp float; precision highp int; precision highp sampler2D;
layout(location=0) in vec3 position;
layout(location=1) in uint pixel;
layout(location=2) in vec3 color;
layout(location=3) in uint kind;
layout(location=4) in float value;
layout(location=5) in float edge;
layout(location=6) in float stretch;
uniform mat3 turn;                 // rows: right, down, forward
uniform vec3 eye;
uniform vec4 lens;                 // 2 focal / (width, height), and the principal point's way from the middle
uniform vec2 depths, range;        // near and far; the values at the ends of the palette
uniform float edge_limit, growth, fixed_size, smallest, largest;
uniform int mode, palette, patch_side, columns, stride;
uniform vec2 frame, own;              // (height, width) of the patches' picture and of this pane's
uniform vec3 kinds[16];
uniform vec3 none;
uniform sampler2D palettes;
flat out vec3 paint;
flat out uvec2 number;
flat out float side;

vec3 coloured() {
  if (mode == 0) return color;
  if (mode == 1) return kind < 16u ? kinds[kind] : none;
  if ((floatBitsToUint(value) & 0x7fffffffu) > 0x7f800000u) return none;  // isnan() may be optimised away
  float level = clamp(round((value - range.x) * (255.0 / (range.y - range.x))), 0.0, 255.0);
  return texelFetch(palettes, ivec2(int(level), palette), 0).rgb;
}

void main() {
  vec3 p = turn * (position - eye);
  if (p.z < depths.x || edge > edge_limit) {
    gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
    gl_PointSize = 1.0;
    return;
  }
  float span = depths.y - depths.x;
  gl_Position = vec4(p.x * lens.x + p.z * lens.z, -p.y * lens.y - p.z * lens.w,
                     ((depths.y + depths.x) * p.z - 2.0 * depths.y * depths.x) / span, p.z);
  float wanted = growth * stretch * 255.0 / 64.0 * abs(position.z) / p.z;
  side = fixed_size > 0.0 ? fixed_size : clamp(wanted, smallest, largest);
  gl_PointSize = side;
  ivec2 of = ivec2(frame), by = ivec2(own), at = ivec2(int(pixel) / by.y, int(pixel) % by.y);
  at = (2 * at + 1) * of / (2 * by);  // as pixelIn
  int place = (at.x / patch_side) * columns + at.y / patch_side;
  paint = coloured();
  number = uvec2(uint(gl_VertexID * stride) + 1u, uint(place));
}`;

const POINT_FRAGMENT = `#version 300 es
precision highp float; precision highp int;
flat in vec3 paint;
flat in uvec2 number;
flat in float side;
layout(location=0) out vec4 shown;
layout(location=1) out uvec2 picked;
void main() {
  vec2 c = gl_PointCoord * 2.0 - 1.0;
  if (side > 2.5 && dot(c, c) > 1.0) discard;
  shown = vec4(paint, 1.0);
  picked = number;
}`;

const LIGHT_VERTEX = `#version 300 es
void main() { gl_Position = vec4(float(gl_VertexID & 1) * 4.0 - 1.0, float(gl_VertexID & 2) * 2.0 - 1.0, 0.0, 1.0); }`;

const LIGHT_FRAGMENT = `#version 300 es
precision highp float; precision highp int; precision highp sampler2D; precision highp usampler2D;
uniform sampler2D paint, depth;
uniform usampler2D numbers, flags;
uniform vec2 depths;
uniform float shading;
uniform int reach, line;
uniform bool has_flags, is_dimming;
uniform vec3 ground, ink, paper, accent;
out vec4 shown;
ivec2 last;

ivec2 near(ivec2 p) { return clamp(p, ivec2(0), last); }
float level(ivec2 p) {
  float d = texelFetch(depth, near(p), 0).r;
  return d >= 1.0 ? 128.0 : log2(depths.x * depths.y / (depths.y - d * (depths.y - depths.x)));
}
float step_of(float behind) { return clamp(behind - ${FLAT}, 0.0, 0.05); }
int flag(ivec2 p) {  // bit 0: chosen, bit 1: hovered
  ivec2 number = ivec2(texelFetch(numbers, near(p), 0).rg);
  int wide = textureSize(flags, 0).x;
  return number.x == 0 ? 0 : int(texelFetch(flags, ivec2(number.y % wide, number.y / wide), 0).r);
}

void main() {
  ivec2 p = ivec2(gl_FragCoord.xy);
  last = textureSize(paint, 0) - 1;
  vec4 here = texelFetch(paint, p, 0);
  vec3 color = here.a > 0.0 ? here.rgb : ground;
  int mine = has_flags ? flag(p) : 0;
  if (is_dimming && (mine & 1) == 0) color = mix(color, ground, ${DIMMED});
  if ((mine & 2) != 0) color = mix(color, vec3(1.0), 0.2);
  if (here.a > 0.0 && shading > 0.0) {
    float own = level(p);
    float behind = step_of(own - level(p + ivec2(reach, 0))) + step_of(own - level(p - ivec2(reach, 0)))
                 + step_of(own - level(p + ivec2(0, reach))) + step_of(own - level(p - ivec2(0, reach)));
    color *= exp(-12.0 * shading * behind);
  }
  if (has_flags) {
    int a = flag(p + ivec2(line, 0)), b = flag(p - ivec2(line, 0));
    int c = flag(p + ivec2(0, line)), d = flag(p - ivec2(0, line));
    for (int bit = 1; bit <= 2; bit++) {
      if ((mine & bit) != 0 && (a & b & c & d & bit) == 0) color = paper;
      if ((mine & bit) == 0 && ((a | b | c | d) & bit) != 0) color = bit == 1 ? accent : ink;
    }
  }
  shown = vec4(color, 1.0);
}`;

// ---- small things

const radians = (degrees) => degrees * Math.PI / 180;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const rgb = (hexadecimal) => [1, 3, 5].map((at) => parseInt(hexadecimal.slice(at, at + 2), 16) / 255);
const counted = (number) => number.toLocaleString("en-US");

function numberText(value, digits, isSigned) {
  const text = Math.abs(value).toFixed(digits);
  const sign = Number(text) === 0 ? "" : value < 0 ? "\u2212" : isSigned ? "+" : "";
  return sign + text;
}

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function typed(value, Kind) {
  if (!value || !value.byteLength) return new Kind(0);
  const bytes = value instanceof DataView ? value : new DataView(value.buffer ?? value, value.byteOffset ?? 0);
  const { buffer, byteOffset: start, byteLength: length } = bytes;
  if (start % Kind.BYTES_PER_ELEMENT) return new Kind(buffer.slice(start, start + length));
  return new Kind(buffer, start, Math.floor(length / Kind.BYTES_PER_ELEMENT));
}

// ---- the camera: the same numbers as point_cloud.state_camera

function frameOf(camera) {
  const turn = radians(camera.yaw), rise = radians(camera.pitch);
  const sight = [-Math.cos(rise) * Math.sin(turn), Math.sin(rise), Math.cos(rise) * Math.cos(turn)];
  const right = [Math.cos(turn), 0, Math.sin(turn)];
  const down = [Math.sin(rise) * Math.sin(turn), Math.cos(rise), -Math.sin(rise) * Math.cos(turn)];
  return { sight, right, down, eye: camera.target.map((value, axis) => value - camera.distance * sight[axis]) };
}

function focalOf(camera, rect, size) {
  const scale = Math.min(rect.height / size[0], rect.width / size[1]);
  return scale * size[1] / (2 * Math.tan(radians(camera.field_of_view) / 2));
}

function project(camera, point, rect, size) {
  const { sight, right, down, eye } = frameOf(camera), focal = focalOf(camera, rect, size);
  const [shiftX, shiftY] = camera.shift ?? [0, 0];
  const along = (axis) => axis.reduce((sum, value, i) => sum + value * (point[i] - eye[i]), 0);
  const z = along(sight);
  return [rect.x + rect.width / 2 + focal * (along(right) / z + shiftX),
          rect.y + rect.height / 2 + focal * (along(down) / z + shiftY), z];
}

function between(from, to, share) {
  const mix = (a, b) => a + (b - a) * share;
  const turn = ((to.yaw - from.yaw + 540) % 360) - 180; // the shorter way round
  const pairs = (a, b) => a.map((value, i) => mix(value, b[i]));
  return { target: pairs(from.target, to.target), yaw: from.yaw + turn * share, pitch: mix(from.pitch, to.pitch),
           distance: Math.exp(mix(Math.log(from.distance), Math.log(to.distance))),
           field_of_view: mix(from.field_of_view, to.field_of_view),
           shift: pairs(from.shift ?? [0, 0], to.shift ?? [0, 0]) };
}

// Metres between neighbouring points, one metre from the eye that measured them; as point_cloud._spacing.
function spacingOf({ positions, pixel }) {
  const gaps = [], step = Math.max(1, Math.floor(pixel.length / 4096));
  for (let i = 0; i + 1 < pixel.length; i += step) {
    const apart = pixel[i + 1] - pixel[i], a = 3 * i, b = a + 3;
    if (apart <= 0 || apart >= 16) continue;
    gaps.push(Math.hypot(positions[b] - positions[a], positions[b + 1] - positions[a + 1],
                         positions[b + 2] - positions[a + 2]) / Math.max(Math.abs(positions[a + 2]), 1e-3));
  }
  gaps.sort((a, b) => a - b);
  return gaps.length ? gaps[gaps.length >> 1] : 0.004;
}

// Which point comes from each pixel; -1 = none.
function placesOf({ pixel }, [height, width]) {
  const places = new Int32Array(height * width).fill(-1);
  for (let i = 0; i < pixel.length; i++) places[pixel[i]] = i;
  return places;
}

// How much farther than usual a point's neighbours on the same surface are, 64 = as usual: a surface seen at a grazing
// angle stays closed when the camera looks at it from elsewhere. A jump to something else does not count.
function stretchOf({ positions, pixel, spacing, places }, width) {
  const stretch = new Uint8Array(pixel.length).fill(64);
  for (let i = 0; i < pixel.length; i++) {
    const usual = spacing * Math.abs(positions[3 * i + 2]);
    for (const j of [(pixel[i] + 1) % width ? places[pixel[i] + 1] : -1, places[pixel[i] + width] ?? -1]) {
      if (j < 0) continue;
      const x = positions[3 * j] - positions[3 * i], y = positions[3 * j + 1] - positions[3 * i + 1];
      const z = positions[3 * j + 2] - positions[3 * i + 2], ratio = Math.sqrt(x * x + y * y + z * z) / usual;
      if (ratio > 8) continue;
      const code = 64 * clamp(ratio, 1, 2.5);
      if (code > stretch[i]) stretch[i] = code;
      if (code > stretch[j]) stretch[j] = code;
    }
  }
  return stretch;
}

// ---- the painter: everything that knows WebGL

class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: false, alpha: true, powerPreference: "high-performance" });
    if (!this.gl) throw new Error("no WebGL2");
    this.start();
  }

  // Also after the context came back: everything on the graphics card is made anew.
  start() {
    const gl = this.gl;
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    this.points = this.program(POINT_VERTEX, POINT_FRAGMENT);
    this.light = this.program(LIGHT_VERTEX, LIGHT_FRAGMENT);
    this.buffers = {};
    this.arrays = [gl.createVertexArray(), gl.createVertexArray()];
    this.empty = gl.createVertexArray();
    this.textures = Object.fromEntries(["palettes", "flags", "paint", "numbers", "depth"].map(
      (name) => [name, gl.createTexture()]));
    this.target = gl.createFramebuffer();
    this.extent = [0, 0];
  }

  program(vertex, fragment) {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(gl.getProgramInfoLog(program) || "a shader does not link");
    }
    const places = {};
    for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
      const { name, type } = gl.getActiveUniform(program, i);
      places[name.replace("[0]", "")] = [gl.getUniformLocation(program, name), type];
    }
    return { program, places };
  }

  use({ program, places }, values) {
    const gl = this.gl;
    gl.useProgram(program);
    const setters = { [gl.FLOAT]: "uniform1f", [gl.FLOAT_VEC2]: "uniform2fv", [gl.FLOAT_VEC3]: "uniform3fv",
                      [gl.FLOAT_VEC4]: "uniform4fv" };
    for (const [name, value] of Object.entries(values)) {
      if (!places[name]) continue;
      const [place, type] = places[name];
      if (type === gl.FLOAT_MAT3) gl.uniformMatrix3fv(place, true, value);
      else gl[setters[type] ?? "uniform1i"](place, value);
    }
  }

  upload(name, array) {
    const gl = this.gl;
    this.buffers[name] ??= gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
  }

  texture(name, unit, format, width, height, data) {
    const gl = this.gl;
    const kinds = { rgba: [gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE], rgb: [gl.RGB8, gl.RGB, gl.UNSIGNED_BYTE],
                    flag: [gl.R8UI, gl.RED_INTEGER, gl.UNSIGNED_BYTE],
                    number: [gl.RG32UI, gl.RG_INTEGER, gl.UNSIGNED_INT],
                    depth: [gl.DEPTH_COMPONENT24, gl.DEPTH_COMPONENT, gl.UNSIGNED_INT] };
    const [inner, outer, type] = kinds[format];
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, this.textures[name]);
    gl.texImage2D(gl.TEXTURE_2D, 0, inner, width, height, 0, outer, type, data);
    for (const [key, value] of [[gl.TEXTURE_MIN_FILTER, gl.NEAREST], [gl.TEXTURE_MAG_FILTER, gl.NEAREST],
                                [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE]]) {
      gl.texParameteri(gl.TEXTURE_2D, key, value);
    }
  }

  resize(width, height) {
    if (this.extent[0] === width && this.extent[1] === height) return false;
    const gl = this.gl;
    this.extent = [width, height];
    this.canvas.width = width;
    this.canvas.height = height;
    this.texture("paint", 2, "rgba", width, height, null);
    this.texture("depth", 3, "depth", width, height, null);
    this.texture("numbers", 4, "number", width, height, null);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    [[gl.COLOR_ATTACHMENT0, "paint"], [gl.COLOR_ATTACHMENT1, "numbers"], [gl.DEPTH_ATTACHMENT, "depth"]].forEach(
      ([place, name]) => gl.framebufferTexture2D(gl.FRAMEBUFFER, place, gl.TEXTURE_2D, this.textures[name], 0));
    gl.drawBuffers([gl.COLOR_ATTACHMENT0, gl.COLOR_ATTACHMENT1]);
    return true;
  }

  // Attributes of one pane; what is missing becomes a constant. The channel is an offset into the values' buffer, and
  // every stride-th point is a matter of steps through it.
  bind(index, pane, channel, stride) {
    const gl = this.gl;
    gl.bindVertexArray(this.arrays[index]);
    const bytes = { [gl.FLOAT]: 4, [gl.UNSIGNED_INT]: 4, [gl.UNSIGNED_BYTE]: 1 };
    const attribute = (place, name, isThere, size, type, { isInteger, isNormalised = false, offset = 0 } = {}) => {
      if (!isThere) return gl.disableVertexAttribArray(place);
      const step = stride * size * bytes[type];
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[`${name}_${index}`]);
      gl.enableVertexAttribArray(place);
      if (isInteger) gl.vertexAttribIPointer(place, size, type, step, offset);
      else gl.vertexAttribPointer(place, size, type, isNormalised, step, offset);
    };
    const n = pane.count;
    attribute(0, "positions", true, 3, gl.FLOAT);
    attribute(1, "pixel", true, 1, gl.UNSIGNED_INT, { isInteger: true });
    attribute(2, "color", pane.color.length === 3 * n, 3, gl.UNSIGNED_BYTE, { isNormalised: true });
    attribute(3, "kind", pane.kind.length === n, 1, gl.UNSIGNED_BYTE, { isInteger: true });
    attribute(4, "values", pane.values.length >= (channel + 1) * n, 1, gl.FLOAT, { offset: 4 * channel * n });
    attribute(5, "edge", pane.edge.length === n, 1, gl.FLOAT);
    attribute(6, "stretch", true, 1, gl.UNSIGNED_BYTE, { isNormalised: true });
    gl.vertexAttrib3f(2, ...NO_VALUE.map((value) => value / 255));
    gl.vertexAttribI4ui(3, 255, 0, 0, 0);
    gl.vertexAttrib1f(4, NaN);
    gl.vertexAttrib1f(5, 0);
  }

  scissor({ x, y, width, height }) {
    this.gl.scissor(x, this.extent[1] - y - height, width, height);
  }

  // First pass. shots: [{ index, pane, rect, clip, uniforms }] in device pixels.
  drawPoints(shots, channel) {
    const gl = this.gl, [width, height] = this.extent;
    this.place(["palettes", null, null, null, null]); // nothing is read that is being drawn
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.viewport(0, 0, width, height);
    gl.disable(gl.SCISSOR_TEST);
    gl.enable(gl.DEPTH_TEST);
    gl.clearBufferfv(gl.COLOR, 0, [0, 0, 0, 0]);
    gl.clearBufferuiv(gl.COLOR, 1, [0, 0, 0, 0]);
    gl.clearBufferfv(gl.DEPTH, 0, [1]);
    gl.enable(gl.SCISSOR_TEST);
    for (const { index, pane, rect, clip, uniforms } of shots) {
      if (!pane.count) continue;
      gl.viewport(rect.x, height - rect.y - rect.height, rect.width, rect.height);
      this.scissor(clip);
      this.use(this.points, { palettes: 0, ...uniforms });
      this.bind(index, pane, channel, uniforms.stride);
      gl.drawArrays(gl.POINTS, 0, Math.floor((pane.count - 1) / uniforms.stride) + 1);
    }
  }

  // Second pass, onto the page.
  drawLight(shots, uniforms) {
    const gl = this.gl, [width, height] = this.extent;
    this.place([null, "flags", "paint", "depth", "numbers"]);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, width, height);
    gl.disable(gl.DEPTH_TEST);
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.SCISSOR_TEST);
    gl.bindVertexArray(this.empty);
    this.use(this.light, { flags: 1, paint: 2, depth: 3, numbers: 4, ...uniforms });
    for (const { clip } of shots) {
      this.scissor(clip);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    }
  }

  place(names) {
    names.forEach((name, unit) => {
      this.gl.activeTexture(this.gl.TEXTURE0 + unit);
      this.gl.bindTexture(this.gl.TEXTURE_2D, name && this.textures[name]);
    });
  }

  // The number of the drawn point nearest to a place, or -1; clip keeps the search inside of one pane.
  pick(x, y, radius, clip) {
    const gl = this.gl;
    const left = Math.max(clip.x, Math.floor(x - radius)), top = Math.max(clip.y, Math.floor(y - radius));
    const width = Math.min(clip.x + clip.width, Math.ceil(x + radius)) - left;
    const height = Math.min(clip.y + clip.height, Math.ceil(y + radius)) - top;
    if (width <= 0 || height <= 0) return -1;
    const found = new Uint32Array(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.readBuffer(gl.COLOR_ATTACHMENT1);
    gl.readPixels(left, this.extent[1] - top - height, width, height, gl.RGBA_INTEGER, gl.UNSIGNED_INT, found);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    let best = 0, least = radius * radius;
    for (let i = 0; i < width * height; i++) {
      if (!found[4 * i]) continue;
      const apart = (left + (i % width) + 0.5 - x) ** 2 + (top + height - 1 - Math.floor(i / width) + 0.5 - y) ** 2;
      if (apart < least) [best, least] = [found[4 * i], apart];
    }
    return best - 1;
  }

  release() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

// ---- the page

function buildPage() {
  const select = (name, options) => element("select", { "aria-label": name },
    ...options.map(([value, text]) => element("option", { value }, text)));
  const parts = {
    badge: element("span", { className: "m3c-badge", hidden: true }, "updating\u2026"),
    label: element("strong", { className: "m3c-label" }), note: element("div", { className: "m3c-note" }),
    views: VIEWS.map(([value, text], i) =>
      element("button", { type: "button", value, title: `${text} view (key ${i + 1})` }, text)),
    reset: element("button", { type: "button", title: "Back to the first view (Home)" }, "Reset"),
    mode: select("Colour by", []), layout: select("Layout", LAYOUTS),
    size: element("input", { type: "range", min: 0, max: 12, step: 0.5, "aria-label": "Point size, 0 = automatic" }),
    sizeText: element("output", {}, "auto"),
    edge: element("input", { type: "range", min: 30, max: 90, step: 1,
                             "aria-label": "Flying pixels: steepest surface that stays, degrees" }),
    edgeText: element("output"),
    blink: element("button", { type: "button", hidden: true }, "Pause"),
    period: element("output", { hidden: true }),
    png: element("button", { type: "button", title: "Download what is drawn" }, "Save PNG"),
    canvas: element("canvas", { className: "m3c-canvas" }), overlay: element("canvas", { className: "m3c-overlay" }),
    titles: [0, 1].map(() => element("div", { className: "m3c-title" })),
    curtain: element("div", { className: "m3c-curtain", tabIndex: 0, role: "slider", hidden: true,
                              "aria-label": "Curtain between the two clouds",
                              "aria-valuemin": 0, "aria-valuemax": 100 }),
    message: element("div", { className: "m3c-message", role: "alert", hidden: true }),
    legend: element("div", { className: "m3c-legend" }),
    readout: element("div", { className: "m3c-readout", role: "status", "aria-live": "polite" }),
    removed: element("div", { className: "m3c-removed" }),
  };
  const field = (text, ...children) => element("label", {}, element("span", {}, text), ...children);
  parts.layoutField = field("Layout", parts.layout);
  parts.edgeField = field("Flying pixels", parts.edge, parts.edgeText);
  parts.edgeField.title = "Leaves out pixels behind a step of depth that only a steeper surface could make";
  parts.toolbar = element("div", { className: "m3c-toolbar", role: "toolbar", "aria-label": "Point cloud" },
    element("span", { className: "m3c-group", role: "group", "aria-label": "View" }, ...parts.views, parts.reset),
    field("Colour", parts.mode), parts.layoutField, parts.blink, parts.period,
    field("Points", parts.size, parts.sizeText), parts.edgeField, parts.png);
  parts.stage = element("div", { className: "m3c-stage", tabIndex: 0, role: "application" },
    parts.canvas, parts.overlay, ...parts.titles, parts.curtain, parts.message);
  parts.root = element("div", { className: "m3c" },
    element("div", { className: "m3c-head" }, parts.label, parts.badge), parts.note, parts.toolbar, parts.stage,
    element("div", { className: "m3c-foot" }, parts.legend,
      element("div", { className: "m3c-said" }, parts.readout, parts.removed)));
  return parts;
}

function render({ model, el }) {
  const page = buildPage(), { stage, root } = page;
  el.append(root);
  const undo = []; // what cleanup has to take back
  const listen = (target, event, callback, options) => {
    target.addEventListener(event, callback, options);
    undo.push(() => target.removeEventListener(event, callback, options));
  };
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const panes = [0, 1].map(() => ({ count: 0, color: [], kind: [], values: [], edge: [] }));
  const dirty = new Set([...DATA, "palettes", "flags"]); // what the graphics card does not have yet
  let painter = null, theme = {}, pending = 0, ratio = 1, box = { width: 0, height: 0 };
  let camera = null, ownCamera = null, flight = null; // as drawn; as last sent; on its way to a preset
  let hovered = null; // { index, point } under the cursor, or null where hover came from elsewhere
  let cursor = null, front = 0, saveTimer = 0, isSaveOwed = false;
  let arePointsOld = true; // the first pass has to be drawn again
  let coarseness = 0, pace = 0, lastFrame = 0, restTimer = 0; // see keepPace
  const firstView = model.get("view") || "three-quarter";

  // ---- saying what changed

  function save(isLast = false) {
    if (saveTimer && !isLast) return void (isSaveOwed = true);
    clearTimeout(saveTimer);
    isSaveOwed = false;
    model.save_changes();
    saveTimer = setTimeout(() => {
      saveTimer = 0;
      if (isSaveOwed) save();
    }, 100);
  }

  function put(values, isLast = true) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    save(isLast);
  }

  function moveCamera(next, { view = "", isLast = false, isFlying = false } = {}) {
    flight = isFlying && !calm.matches && camera ? { from: camera, to: next, start: performance.now() } : null;
    if (!flight) camera = next;
    if (!isLast || isFlying) moving();
    ownCamera = next;
    put({ camera: next, view }, isLast);
    refreshViews();
    redraw();
  }

  const goTo = (name) => {
    const to = model.get("views")[name];
    if (to) moveCamera({ ...to }, { view: name, isLast: true, isFlying: true });
  };

  // ---- what is drawn where

  const paneCount = () => Math.min(2, model.get("panes").length);
  const layout = () => (paneCount() === 2 ? model.get("layout_mode") : "side");
  const isStacked = () => layout() === "side" && paneCount() === 2 && box.width < NARROW;
  const isReady = () => painter && !painter.gl.isContextLost() && box.width > 0;

  function shownPanes() {
    const whole = { x: 0, y: 0, width: box.width, height: box.height };
    if (layout() === "wipe") {
      const at = Math.round(model.get("wipe") * box.width);
      return [{ index: 0, rect: whole, clip: { ...whole, width: at } },
              { index: 1, rect: whole, clip: { ...whole, x: at, width: box.width - at } }];
    }
    if (layout() === "blink") return [{ index: front, rect: whole, clip: whole }];
    const count = paneCount(), tall = isStacked();
    return Array.from({ length: count }, (_, index) => {
      const length = Math.floor(((tall ? box.height : box.width) - GAP * (count - 1)) / count);
      const start = index * (length + GAP);
      const rect = tall ? { ...whole, y: start, height: length } : { ...whole, x: start, width: length };
      return { index, rect, clip: rect };
    });
  }

  const paneAt = (x, y) => shownPanes().find(({ clip }) => x >= clip.x && x < clip.x + clip.width
    && y >= clip.y && y < clip.y + clip.height);

  function onDevice({ x, y, width, height }) {
    const [left, top, right, bottom] = [x, y, x + width, y + height].map((length) => Math.round(length * ratio));
    return { x: left, y: top, width: right - left, height: bottom - top };
  }

  // ---- data

  const sizeOf = (index) => model.get("pane_sizes")?.[index] ?? model.get("size");

  // The pixel of a picture of size `to` over the middle of a pixel of one of size `from`: as PointCloud.pixel_in.
  function pixelIn(to, from, pixel) {
    const place = [Math.floor(pixel / from[1]), pixel % from[1]];
    const [row, column] = place.map((at, axis) => Math.floor((2 * at + 1) * to[axis] / (2 * from[axis])));
    return row * to[1] + column;
  }

  function readPane(index) {
    const pane = Object.fromEntries(Object.entries(ARRAYS).map(
      ([name, Kind]) => [name, typed(model.get(`${name}_${index}`), Kind)]));
    // Traits arrive one after the other: until positions and pixels fit each other nothing can be drawn.
    pane.count = pane.positions.length === 3 * pane.pixel.length ? pane.pixel.length : 0;
    const old = panes[index];
    if (old.stretch && !dirty.has(`positions_${index}`) && !dirty.has(`pixel_${index}`)) Object.assign(pane, { spacing: old.spacing, places: old.places, stretch: old.stretch });
    else {
    pane.spacing = spacingOf(pane);
    pane.places = placesOf(pane, sizeOf(index));
    pane.stretch = pane.count ? stretchOf(pane, sizeOf(index)[1]) : new Uint8Array(0);
    }
    pane.reach = 0;
    for (let i = 0; i < 3 * pane.count; i += 30) pane.reach = Math.max(pane.reach, Math.abs(pane.positions[i]));
    panes[index] = pane;
  }

  function flushData() {
    for (const index of [0, 1]) {
      const names = DATA.filter((name) => name.endsWith(index) && dirty.has(name));
      if (!names.length) continue;
      readPane(index);
      if (names.some((name) => /^(pos|pix)/.test(name))) painter.upload(`stretch_${index}`, panes[index].stretch);
      for (const name of names) painter.upload(name, panes[index][name.slice(0, -2)]);
      countRemoved();
    }
    if (dirty.has("palettes")) {
      const colors = typed(model.get("palettes"), Uint8Array), rows = Math.max(1, Math.floor(colors.length / 768));
      painter.texture("palettes", 0, "rgb", 256, rows, colors.length ? colors : new Uint8Array(768));
    }
    if (dirty.has("flags")) uploadFlags();
    dirty.clear();
  }

  function grid() {
    const [height, width] = model.get("size"), side = model.get("patch");
    return { columns: Math.ceil(width / side), rows: Math.ceil(height / side), width, side };
  }

  function uploadFlags() {
    const { rows, columns } = grid(), flags = new Uint8Array(rows * columns);
    for (const patch of model.get("selection")) if (patch >= 0 && patch < flags.length) flags[patch] |= 1;
    const patch = model.get("hover");
    if (patch >= 0 && patch < flags.length) flags[patch] |= 2;
    painter.texture("flags", 1, "flag", columns, rows, flags);
  }

  function patchOf(index, point) {
    const { columns, width, side } = grid(), pixel = pixelIn(model.get("size"), sizeOf(index), panes[index].pixel[point]);
    return Math.floor(Math.floor(pixel / width) / side) * columns + Math.floor((pixel % width) / side);
  }

  // The point of the other pane in the same place of the picture, or -1.
  const twinOf = (index, point) =>
    panes[1 - index].places?.[pixelIn(sizeOf(1 - index), sizeOf(index), panes[index].pixel[point])] ?? -1;

  const isRemoved = (pane, point) => pane.edge.length === pane.count && pane.edge[point] > model.get("edge_limit");

  function countRemoved() {
    const limit = model.get("edge_limit");
    const said = model.get("panes").slice(0, 2).map((title, index) => {
      const { edge, count } = panes[index];
      if (edge.length !== count) return "";
      let removed = 0;
      for (let i = 0; i < count; i++) removed += edge[i] > limit;
      return removed ? `${title}: ${counted(removed)} of ${counted(count)}` : "";
    }).filter(Boolean);
    const note = model.get("edge_note") && ` (${model.get("edge_note")})`;
    page.removed.textContent = said.length ? `Flying pixels removed \u2013 ${said.join(" \u00b7 ")}${note}` : "";
    page.edgeField.hidden = !panes.some(({ edge, count }) => count && edge.length === count);
    page.edge.value = limit;
    page.edgeText.textContent = limit >= 90 ? "all kept" : `up to ${Math.round(limit)}\u00b0`;
  }

  const channelNumber = () => model.get("channels").findIndex((channel) => channel.name === model.get("mode"));
  const modeNumber = () => (model.get("mode") === "kind" ? 1 : channelNumber() >= 0 ? 2 : 0);

  // ---- drawing

  function redraw(isLightOnly = false) {
    if (isLightOnly !== true) arePointsOld = true;
    if (!pending && page.colors) pending = requestAnimationFrame(frame);
  }

  // Where a frame takes long (300,000 points without a graphics card), a moving camera sees every third, fifth, ...
  // point, larger; when it rests all of them come back. A stride that divides the width would draw stripes.
  const strides = () => [1, 3, 5, 7, 11, 13].filter((stride) =>
    stride === 1 || [0, 1].every((index) => sizeOf(index)[1] % stride));

  function moving() {
    clearTimeout(restTimer);
    restTimer = setTimeout(() => {
      restTimer = 0;
      redraw();
    }, 220);
  }

  function keepPace(now) {
    const since = now - lastFrame;
    lastFrame = now;
    if (!restTimer || since > 2000 || panes[0].count + panes[1].count < 50_000) return;
    pace = 0.5 * pace + 0.5 * since;
    const next = clamp(coarseness + (pace > 90 ? 1 : pace < 25 ? -1 : 0), 0, strides().length - 1);
    if (next !== coarseness) [coarseness, pace] = [next, 50];
  }

  const stride = () => (restTimer ? strides()[coarseness] ?? 1 : 1);

  function frame(now) {
    pending = 0;
    keepPace(now);
    if (flight) {
      const share = Math.min(1, (now - flight.start) / 240);
      camera = between(flight.from, flight.to, 1 - (1 - share) ** 3);
      if (share >= 1) [camera, flight] = [flight.to, null];
      else redraw();
    }
    if (!isReady()) return;
    draw();
    if (cursor) pickUnder();
    drawOverlay();
  }

  function uniformsOf(index, rect) {
    const { sight, right, down, eye } = frameOf(camera), size = model.get("size");
    const focal = focalOf(camera, rect, size), [shiftX, shiftY] = camera.shift ?? [0, 0];
    const { columns, side } = grid(), channel = model.get("channels")[channelNumber()];
    const kinds = new Float32Array(48), larger = Math.sqrt(stride());
    model.get("kinds").slice(0, 16).forEach((kind, i) => kinds.set(rgb(kind.color), 3 * i));
    const fullWidth = 2 * focal / rect.width, fullHeight = 2 * focal / rect.height;
    return { turn: [...right, ...down, ...sight], eye, depths: reaches(),
             lens: [fullWidth, fullHeight, shiftX * fullWidth, shiftY * fullHeight],
             mode: modeNumber(), range: channel?.range ?? [0, 1], palette: channel?.palette ?? 0, kinds,
             none: NO_VALUE.map((value) => value / 255), edge_limit: model.get("edge_limit"), stride: stride(),
             growth: 1.25 * panes[index].spacing * focal * larger, smallest: ratio, largest: 48 * ratio,
             fixed_size: model.get("point_size") * ratio * larger, frame: size, own: sizeOf(index), patch_side: side, columns };
  }

  function reaches() {
    const far = Math.hypot(...camera.target) + 2 * Math.max(panes[0].reach || 0, panes[1].reach || 0) + camera.distance;
    return [clamp(camera.distance / 100, 0.005, 0.05), Math.max(far, 10)];
  }

  function draw() {
    ratio = Math.min(2, window.devicePixelRatio || 1);
    const [width, height] = [box.width, box.height].map((length) => Math.max(1, Math.round(length * ratio)));
    arePointsOld = painter.resize(width, height) || arePointsOld;
    flushData();
    const shots = shownPanes().map(({ index, ...shown }) => {
      const rect = onDevice(shown.rect), clip = onDevice(shown.clip);
      return { index, pane: panes[index], rect, clip, uniforms: uniformsOf(index, rect) };
    });
    if (arePointsOld) painter.drawPoints(shots, Math.max(0, channelNumber()));
    arePointsOld = false;
    const isDimming = model.get("selection").length > 0, hasFlags = isDimming || model.get("hover") >= 0;
    painter.drawLight(shots, { depths: reaches(), shading: model.get("shading"), reach: Math.round(2 * ratio),
                               line: Math.round(ratio), has_flags: +hasFlags, is_dimming: +isDimming, ...theme });
  }

  function drawOverlay() {
    page.overlay.hidden = !hovered && !model.get("arrows").length; // Chromium may show a cleared canvas as it was
    if (page.overlay.hidden) return;
    const size = model.get("size"), context = page.overlay.getContext("2d"), { width, height } = page.canvas;
    if (page.overlay.width !== width || page.overlay.height !== height) Object.assign(page.overlay, { width, height });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.scale(ratio, ratio);
    for (const { index, rect, clip } of shownPanes()) {
      context.save();
      context.beginPath();
      context.rect(clip.x, clip.y, clip.width, clip.height);
      context.clip();
      for (const arrow of model.get("arrows")) {
        const ends = inFront(arrow.from, arrow.to, (place) => project(camera, place, rect, size));
        if (ends) drawArrow(context, ...ends, arrow);
      }
      const point = !hovered ? -1 : hovered.index === index ? hovered.point : twinOf(hovered.index, hovered.point);
      if (point >= 0 && !isRemoved(panes[index], point)) {
        const place = project(camera, panes[index].positions.subarray(3 * point, 3 * point + 3), rect, size);
        if (place[2] > 0.01) drawRing(context, place);
      }
      context.restore();
    }
  }

  function drawRing(context, [x, y]) {
    for (const [width, color] of [[4, page.colors.paper], [2, page.colors.ink]]) {
      Object.assign(context, { lineWidth: width, strokeStyle: color });
      context.beginPath();
      context.arc(x, y, 7, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  // Both ends of an arrow on the page; of one that begins or ends behind the camera the part before it, or null.
  function inFront(from, to, onPage) {
    const near = 0.02, ends = [onPage(from), onPage(to)];
    const [behind, ahead] = ends[0][2] < ends[1][2] ? [0, 1] : [1, 0];
    if (ends[ahead][2] <= near) return null;
    if (ends[behind][2] <= near) {
      const share = (near - ends[behind][2]) / (ends[ahead][2] - ends[behind][2]), places = [from, to];
      ends[behind] = onPage(places[behind].map((value, axis) => value + share * (places[ahead][axis] - value)));
    }
    return ends;
  }

  function drawArrow(context, [x0, y0], [x1, y1], { weight = 1, color }) { // a body with a light edge, its head as long as fits
    const length = Math.hypot(x1 - x0, y1 - y0), [dx, dy] = length > 0.5 ? [(x1 - x0) / length, (y1 - y0) / length] : [1, 0];
    const fits = Math.min(1, Math.max(0.35, length / (30 + 20 * weight)));
    const half = (1.4 + 1.6 * weight) * fits, head = Math.min((11 + 7 * weight) * fits, 0.6 * length), wing = 0.45 * head + half;
    const at = (along, across) => [x0 + dx * along - dy * across, y0 + dy * along + dx * across], neck = length - head;
    context.beginPath();
    context.arc(x0, y0, half + 1, 0, 2 * Math.PI, true); // turning as the body does: what overlaps is filled, too
    context.closePath();
    context.moveTo(...at(0, half));
    const corners = [[neck, half], [neck, wing], [length, 0], [neck, -wing], [neck, -half], [0, -half]];
    for (const corner of corners) context.lineTo(...at(...corner));
    context.closePath();
    Object.assign(context, { lineWidth: 3.5, strokeStyle: "rgba(255,255,255,0.92)", lineJoin: "round",
                             fillStyle: color || page.colors.accent });
    context.stroke();
    context.fill();
  }

  // ---- what is under the cursor

  function pick(x, y) {
    const shown = paneAt(x, y);
    if (!shown || !isReady()) return null;
    if (arePointsOld) draw(); // a click may come before the frame that its camera asked for
    const point = painter.pick(x * ratio, y * ratio, PICK_RADIUS * ratio, onDevice(shown.clip));
    return point >= 0 && point < panes[shown.index].count ? { index: shown.index, point } : null;
  }

  function pickUnder() {
    hovered = pick(...cursor);
    cursor = null;
    const patch = hovered ? patchOf(hovered.index, hovered.point) : -1;
    if (patch !== model.get("hover")) put({ hover: patch }, false);
    refreshReadout();
  }

  function leave() {
    cursor = hovered = null;
    if (model.get("hover") !== -1) put({ hover: -1 });
    refreshReadout();
    if (isReady() && camera) drawOverlay();
  }

  function choose(found, isAdding) {
    const chosen = model.get("selection");
    if (!found) return;
    const patch = patchOf(found.index, found.point);
    const has = chosen.includes(patch); // as in PatchImage
    if (isAdding) put({ selection: has ? chosen.filter((other) => other !== patch) : [...chosen, patch] });
    else put({ selection: has && chosen.length === 1 ? [] : [patch] });
  }

  function valuesText(index, point) {
    const pane = panes[index], parts = [`${numberText(pane.positions[3 * point + 2], 2)} m`];
    model.get("channels").forEach((channel, k) => {
      const value = pane.values[k * pane.count + point];
      if (channel.name === "depth" || value === undefined) return;
      const text = `${numberText(value, channel.digits, channel.is_diverging)} ${channel.unit}`;
      parts.push(`${channel.name} ${Number.isNaN(value) ? "none" : text.trim()}`);
    });
    const kind = pane.kind.length === pane.count && model.get("kinds")[pane.kind[point]];
    if (kind) parts.push(kind.name);
    return parts.join(" \u00b7 ");
  }

  function readoutText() {
    const { columns } = grid(), hover = model.get("hover"), titles = model.get("panes");
    const place = (patch) => `patch row ${Math.floor(patch / columns) + 1}, column ${patch % columns + 1}`;
    const chosen = model.get("selection").length;
    const others = chosen ? ` \u00b7 ${chosen} ${chosen === 1 ? "patch" : "patches"} chosen` : "";
    if (hovered && hovered.point < panes[hovered.index].count) {
      const { index, point } = hovered, pixel = panes[index].pixel[point], width = sizeOf(index)[1];
      const twin = paneCount() === 2 ? twinOf(index, point) : -1;
      const metres = twin < 0 ? "" : numberText(panes[1 - index].positions[3 * twin + 2], 2);
      return [`${titles[index]}: pixel row ${Math.floor(pixel / width) + 1}, column ${pixel % width + 1}`, place(hover),
              valuesText(index, point), metres && `${titles[1 - index]} ${metres} m`].filter(Boolean).join(" \u00b7 ");
    }
    if (hover >= 0) return place(hover) + others;
    if (chosen) return `${others.slice(3)} (Escape lets go)`;
    return "Drag to turn, shift-drag to move, wheel to zoom, click to choose a patch";
  }

  const refreshReadout = () => (page.readout.textContent = readoutText());

  // ---- mouse, touch, keys

  const pointers = new Map();
  let gesture = null, chosenBefore = [];
  const placeOf = (event) => {
    const bounds = page.canvas.getBoundingClientRect();
    return [event.clientX - bounds.left, event.clientY - bounds.top];
  };

  function orbit(dx, dy, isLast = false) {
    const yaw = ((camera.yaw - dx + 540) % 360) - 180;
    moveCamera({ ...camera, yaw, pitch: clamp(camera.pitch + dy, -90, 90) }, { isLast });
  }

  function pan(dx, dy, isLast = false) {
    const { right, down } = frameOf(camera);
    const metres = camera.distance / focalOf(camera, shownPanes()[0].rect, model.get("size"));
    const target = camera.target.map((value, axis) => value - metres * (dx * right[axis] + dy * down[axis]));
    moveCamera({ ...camera, target }, { isLast });
  }

  const zoom = (factor, isLast = false) =>
    moveCamera({ ...camera, distance: clamp(camera.distance * factor, 0.05, 200) }, { isLast });

  listen(stage, "pointerdown", (event) => {
    if (event.target === page.curtain) return;
    stage.focus({ preventScroll: true });
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, placeOf(event));
    const isPanning = event.button === 2 || event.button === 1 || event.shiftKey;
    gesture = { start: placeOf(event), hasMoved: pointers.size > 1, isPanning, button: event.button };
    stage.classList.add("is-dragging");
  });

  listen(stage, "pointermove", (event) => {
    const here = placeOf(event), before = pointers.get(event.pointerId);
    if (!before) {
      if (event.target !== page.curtain && event.pointerType !== "touch") cursor = here;
      return redraw(true);
    }
    if (!gesture || !camera) return;
    if (!gesture.hasMoved && Math.hypot(here[0] - gesture.start[0], here[1] - gesture.start[1]) < 4) return;
    gesture.hasMoved = true;
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    pointers.set(event.pointerId, here);
    const [dx, dy] = [here[0] - before[0], here[1] - before[1]];
    if (others.length) {
      const apart = (a) => Math.max(1, Math.hypot(a[0] - others[0][0], a[1] - others[0][1]));
      zoom(apart(before) / apart(here));
      pan(dx / 2, dy / 2);
    } else if (gesture.isPanning) pan(dx, dy);
    else orbit(dx * 0.4, dy * 0.4);
  });

  function endPointer(event) {
    if (!pointers.delete(event.pointerId) || pointers.size) return;
    stage.classList.remove("is-dragging");
    const { hasMoved, button } = gesture;
    if (hasMoved) return save(true);
    const isAdding = event.shiftKey || event.ctrlKey || event.metaKey;
    if (event.type === "pointerup" && button === 0) choose(pick(...placeOf(event)), isAdding);
  }
  listen(stage, "pointerup", endPointer);
  listen(stage, "pointercancel", endPointer);
  listen(stage, "pointerleave", leave);
  listen(stage, "contextmenu", (event) => event.preventDefault());
  listen(stage, "mousedown", (event) => {
    if (event.detail === 1) chosenBefore = model.get("selection");
  });

  listen(stage, "dblclick", (event) => {
    const found = event.target !== page.curtain && pick(...placeOf(event));
    put({ selection: chosenBefore }); // the two clicks of a double click choose nothing
    if (!found) return;
    const target = [...panes[found.index].positions.subarray(3 * found.point, 3 * found.point + 3)];
    moveCamera({ ...camera, target, shift: [0, 0] }, { isLast: true, isFlying: true });
  });

  listen(stage, "wheel", (event) => {
    const active = stage.getRootNode().activeElement;
    if (active !== stage && active !== page.curtain) return; // without focus the page scrolls
    event.preventDefault();
    zoom(Math.exp(clamp(event.deltaY * (event.deltaMode ? 30 : 1), -200, 200) * 0.0015));
  }, { passive: false });

  function pressed(event) {
    const key = event.key, step = event.shiftKey ? 30 : 5;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    if (event.ctrlKey || event.metaKey || event.altKey || !camera) return false;
    if (event.target === page.curtain && arrow && !event.shiftKey) {
      put({ wipe: clamp(model.get("wipe") + 0.02 * (arrow[0] - arrow[1]), 0, 1) });
    } else if (arrow && event.shiftKey) pan(-arrow[0] * step, -arrow[1] * step, true);
    else if (arrow) orbit(-arrow[0] * step, -arrow[1] * step, true);
    else if (key === "+" || key === "=") zoom(1 / 1.15, true);
    else if (key === "-" || key === "_") zoom(1.15, true);
    else if (key >= "1" && key <= "4") goTo(VIEWS[key - 1][0]);
    else if (key === "Home") goTo(firstView);
    else if (key === "Escape") put({ selection: [] });
    else if (key === " ") showOther();
    else if (key === "Enter") chooseMiddle(event.shiftKey);
    else return false;
    return true;
  }

  listen(stage, "keydown", (event) => {
    if (!pressed(event)) return;
    event.preventDefault();
    event.stopPropagation();
  });
  // JupyterLab's shortcuts listen before us: single keys are ours while the cloud has focus, Ctrl+S is not.
  listen(window, "keydown", (event) => {
    root.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  }, true);

  function chooseMiddle(isAdding) {
    const { clip } = shownPanes()[0];
    hovered = pick(clip.x + clip.width / 2, clip.y + clip.height / 2);
    if (hovered) put({ hover: patchOf(hovered.index, hovered.point) });
    choose(hovered, isAdding);
    refreshReadout();
  }

  // ---- toolbar, curtain, blinking

  page.views.forEach((button) => listen(button, "click", () => goTo(button.value)));
  listen(page.reset, "click", () => goTo(firstView));
  listen(page.mode, "change", () => put({ mode: page.mode.value }));
  listen(page.layout, "change", () => put({ layout_mode: page.layout.value }));
  listen(page.size, "input", () => put({ point_size: Number(page.size.value) }, false));
  listen(page.edge, "input", () => put({ edge_limit: Number(page.edge.value) }, false));
  listen(page.edge, "change", () => save(true));
  listen(page.png, "click", savePicture);
  listen(page.blink, "click", () => (calm.matches ? showOther() : put({ is_paused: !model.get("is_paused") })));

  listen(page.curtain, "pointerdown", (event) => page.curtain.setPointerCapture(event.pointerId));
  listen(page.curtain, "pointermove", (event) => {
    if (!page.curtain.hasPointerCapture(event.pointerId)) return;
    put({ wipe: clamp(placeOf(event)[0] / box.width, 0, 1) }, false);
  });
  listen(page.curtain, "pointerup", () => save(true));

  function showOther() {
    if (layout() !== "blink") return;
    front = 1 - front;
    refreshTitles();
    redraw();
  }

  let blinking = 0;
  function refreshBlinking() {
    clearInterval(blinking);
    const isOn = layout() === "blink", isPaused = model.get("is_paused");
    page.blink.hidden = !isOn;
    page.blink.textContent = calm.matches ? "Show the other" : isPaused ? "Blink" : "Pause";
    page.blink.title = "Space shows the other cloud";
    page.period.hidden = !isOn || calm.matches;
    page.period.textContent = `each ${model.get("period")} s`;
    if (isOn && !isPaused && !calm.matches) blinking = setInterval(showOther, 1000 * model.get("period"));
  }
  undo.push(() => clearInterval(blinking));
  listen(calm, "change", refreshBlinking);

  // ---- words, legend, theme

  function refreshViews() {
    const views = model.get("views"), view = model.get("view");
    for (const button of page.views) {
      button.disabled = !views[button.value];
      button.setAttribute("aria-pressed", view === button.value);
    }
    page.reset.disabled = !views[firstView];
  }

  function refreshTitles() {
    const titles = model.get("panes"), shown = shownPanes();
    page.titles.forEach((title, index) => {
      const place = shown.find((other) => other.index === index);
      title.hidden = !place || !titles[index];
      if (title.hidden) return;
      title.textContent = titles[index];
      const isRight = layout() === "wipe" && index === 1;
      Object.assign(title.style, { left: isRight ? "auto" : `${place.rect.x + 8}px`, right: isRight ? "8px" : "auto",
                                   top: `${place.rect.y + 8}px` });
    });
    page.curtain.hidden = layout() !== "wipe";
    page.curtain.style.left = `${100 * model.get("wipe")}%`;
    page.curtain.setAttribute("aria-valuenow", Math.round(100 * model.get("wipe")));
  }

  function modeChoices() {
    const has = (name) => [0, 1].some((index) => model.get(`${name}_${index}`)?.byteLength > 0);
    const named = model.get("channels").map(({ name }) => [name, name]);
    const fixed = [["color", "picture", has("color")], ["kind", "provenance", has("kind")]];
    return [...fixed.filter(([value, , isThere]) => isThere || value === model.get("mode")), ...named];
  }

  function refreshWords() {
    const mode = model.get("mode"), choices = modeChoices();
    page.label.textContent = model.get("label");
    page.note.textContent = model.get("note");
    page.note.hidden = !model.get("note");
    const problem = model.get("problem");
    page.badge.hidden = !model.get("stale") && !problem;
    page.badge.textContent = problem ? "cannot be shown" : "updating\u2026";
    page.badge.title = problem ?? "";
    root.classList.toggle("is-stale", model.get("stale") || Boolean(problem));
    page.mode.replaceChildren(...choices.map(([value, text]) => element("option", { value }, text)));
    page.mode.value = mode;
    page.layoutField.hidden = paneCount() < 2;
    page.layout.value = model.get("layout_mode");
    page.size.value = model.get("point_size");
    page.sizeText.textContent = model.get("point_size") ? `${model.get("point_size")} px` : "auto";
    const clouds = model.get("panes").slice(0, 2).map((title, index) =>
      `${title} (${counted(Math.floor((model.get(`pixel_${index}`)?.byteLength ?? 0) / 4))} points)`).join(" and ");
    const by = choices.find(([value]) => value === mode)?.[1] ?? mode;
    stage.setAttribute("aria-label", `Point clouds: ${clouds}, coloured by ${by}. Arrow keys turn, shift and arrows `
      + "move, plus and minus zoom, 1 to 4 choose a view, Home resets, Enter chooses the patch in the middle, Escape "
      + "lets go.");
    refreshTitles();
    refreshViews();
    refreshLegend();
    refreshBlinking();
    refreshReadout();
  }

  function gradientOf(channel) {
    const colors = typed(model.get("palettes"), Uint8Array);
    return Array.from({ length: 33 }, (_, i) => {
      const first = channel.palette * 768 + 3 * Math.min(255, 8 * i);
      return `rgb(${colors.slice(first, first + 3).join(",")})`;
    });
  }

  function refreshLegend() {
    const channel = model.get("channels")[channelNumber()];
    const swatch = (color, text) => element("span", { className: "m3c-kind" },
      element("i", { style: `background:${color}` }), text);
    page.legend.replaceChildren();
    const kinds = model.get("mode") === "kind" ? model.get("kinds") : [];
    page.legend.append(...kinds.map(({ name, color }) => swatch(color, name)));
    if (!channel) return;
    const [low, high] = channel.range, [below, above] = channel.ends ?? ["", ""];
    const bar = element("div", { className: "m3c-bar" });
    bar.style.background = `linear-gradient(to right, ${gradientOf(channel).join(",")})`;
    const ticks = [low, (low + high) / 2, high].map((value) =>
      element("span", {}, numberText(value, channel.digits, channel.is_diverging)));
    const name = `${channel.name}${channel.unit ? ` [${channel.unit}]` : ""}`;
    const scale = element("div", { className: "m3c-scale" }, bar, element("div", { className: "m3c-ticks" }, ...ticks));
    page.legend.append(element("span", {}, name), element("span", { className: "m3c-end" }, below), scale,
                       element("span", { className: "m3c-end" }, above));
    if (hasNone(channelNumber())) page.legend.append(swatch(`rgb(${NO_VALUE})`, "no value"));
  }

  function hasNone(channel) {
    return panes.some((pane) => {
      pane.none ??= {};
      pane.none[channel] ??= pane.count > 0 && pane.values.subarray(channel * pane.count, (channel + 1) * pane.count)
        .some(Number.isNaN);
      return pane.none[channel];
    });
  }

  // Dark where the page writes in light letters: JupyterLab's theme, else what the reader's system asks for.
  function refreshTheme() {
    if (!root.isConnected) return; // JupyterLab renders first and attaches then; without a page there are no colours
    const parts = getComputedStyle(root).color.match(/[\d.]+/g).map(Number);
    const isDark = 0.3 * parts[0] + 0.6 * parts[1] + 0.1 * parts[2] > 140;
    root.dataset.theme = isDark ? "dark" : "light";
    const style = getComputedStyle(root), role = (name) => style.getPropertyValue(`--m3c-${name}`).trim();
    page.colors = { paper: role("paper"), ink: role("ink"), accent: role("accent"), ground: role("ground") };
    theme = Object.fromEntries(Object.entries(page.colors).map(([name, color]) => [name, rgb(color)]));
    redraw();
  }

  function say(text) {
    page.message.hidden = !text;
    page.message.textContent = text;
  }

  // anywidget hands on the event but not the value; JupyterLab then marks the view's element.
  function checkKernel() {
    const isGone = model.comm_live === false || Boolean(el.closest(".jupyter-widgets-disconnected"));
    root.classList.toggle("is-gone", isGone);
    if (painter) say(isGone ? "The kernel is gone: this is the last picture. Run the cell again." : "");
  }

  // ---- a picture to keep

  function savePicture() {
    if (!isReady()) return;
    draw();
    drawOverlay();
    const strip = page.legend.textContent ? 56 : 0;
    const { width, height } = page.canvas;
    const sheet = element("canvas", { width, height: height + Math.round(strip * ratio) });
    const context = sheet.getContext("2d");
    context.fillStyle = page.colors.paper;
    context.fillRect(0, 0, sheet.width, sheet.height);
    context.drawImage(page.canvas, 0, 0);
    if (!page.overlay.hidden) context.drawImage(page.overlay, 0, 0);
    context.scale(ratio, ratio);
    context.font = "600 14px system-ui, sans-serif";
    context.fillStyle = page.colors.ink;
    for (const title of page.titles.filter((other) => !other.hidden)) {
      context.fillText(title.textContent, title.offsetLeft + 8, title.offsetTop + 18);
    }
    if (strip) drawLegend(context, box.height + 8);
    sheet.toBlob((blob) => {
      const address = URL.createObjectURL(blob);
      element("a", { href: address, download: "point_cloud.png" }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    });
  }

  function drawLegend(context, top) {
    const channel = model.get("channels")[channelNumber()], width = Math.min(320, box.width - 16);
    context.font = "13px system-ui, sans-serif";
    if (!channel) {
      model.get("kinds").reduce((left, { name, color }) => {
        Object.assign(context, { fillStyle: color });
        context.fillRect(left, top + 4, 12, 12);
        context.fillStyle = page.colors.ink;
        context.fillText(name, left + 18, top + 15);
        return left + 36 + context.measureText(name).width;
      }, 8);
      return;
    }
    const gradient = context.createLinearGradient(8, 0, 8 + width, 0);
    gradientOf(channel).forEach((color, i, all) => gradient.addColorStop(i / (all.length - 1), color));
    context.fillStyle = gradient;
    context.fillRect(8, top, width, 14);
    context.fillStyle = page.colors.ink;
    ["left", "center", "right"].forEach((align, i) => {
      const value = channel.range[0] + (channel.range[1] - channel.range[0]) * i / 2;
      context.textAlign = align;
      context.fillText(numberText(value, channel.digits, channel.is_diverging) + (i === 2 ? ` ${channel.unit}` : ""),
                       8 + width * i / 2, top + 30);
    });
    context.textAlign = "left";
  }

  // ---- life

  function startPainter() {
    try {
      painter = new Painter(page.canvas);
    } catch (error) {
      root.classList.add("is-blind");
      const reason = error.message === "no WebGL2" ? "" : ` (${error.message})`;
      say(`This browser offers no WebGL2, which the point cloud is drawn with${reason}. Switch on hardware `
        + "acceleration, close other 3D views, or use cloud.still() for a picture made in Python.");
    }
  }

  listen(page.canvas, "webglcontextlost", (event) => {
    event.preventDefault();
    say("The graphics card let go of this view; it comes back by itself, or run the cell again.");
  });
  listen(page.canvas, "webglcontextrestored", () => {
    painter.start();
    [...DATA, "palettes", "flags"].forEach((name) => dirty.add(name));
    checkKernel();
    redraw();
  });

  const watch = (names, callback) => {
    const events = names.map((name) => `change:${name}`).join(" ");
    model.on(events, callback);
    undo.push(() => model.off(events, callback));
  };
  for (const name of [...DATA, "palettes"]) {
    watch([name], () => {
      dirty.add(name);
      hovered = null; // its number may mean another point now
      if (isReady()) redraw();
    });
  }
  watch(["palettes", "panes", "kinds", "channels", "mode", "layout_mode", "point_size"], () => {
    refreshWords();
    redraw();
  });
  watch([...DATA.filter((n)=>n.startsWith("pixel")), "label", "note", "stale", "problem", "period", "is_paused", "views", "view"], () => refreshWords());
  watch(["size", "patch", "pane_sizes"], () => {
    DATA.forEach((name) => dirty.add(name));
    redraw();
  });
  watch(["hover", "selection", "size", "patch", "pane_sizes"], () => {
    dirty.add("flags");
    if (hovered && patchOf(hovered.index, hovered.point) !== model.get("hover")) hovered = null;
    refreshReadout();
    redraw(true);
  });
  watch(["edge_limit", "edge_note"], countRemoved);
  watch(["edge_limit"], () => redraw());
  watch(["shading", "arrows"], () => redraw(true));
  watch(["wipe"], () => {
    refreshTitles();
    redraw();
  });
  watch(["layout_mode", "panes", "height", "pane_shape"], measure);
  watch(["camera"], () => {
    const next = model.get("camera");
    if (next === ownCamera || !next.target || pointers.size) return;
    [camera, flight] = [next, null];
    moving();
    redraw();
  });
  watch(["view"], () => {
    const to = model.get("views")[model.get("view")];
    if (to && ownCamera !== model.get("camera") && to !== camera) [camera, flight] = [to, null];
  });
  const onLive = () => setTimeout(checkKernel);
  model.on("comm_live_update", onLive);
  undo.push(() => model.off("comm_live_update", onLive));

  function measure() {
    const height = model.get("height"), shape = model.get("pane_shape");
    box.width = stage.clientWidth;
    const isBeside = layout() === "side" && paneCount() === 2 && !isStacked();
    const high = shape ? Math.round(Math.min(height, (isBeside ? (box.width - GAP) / 2 : box.width) / shape)) : height;
    stage.style.height = `${isStacked() ? (shape ? 2 * high + GAP : Math.round(1.6 * height)) : high}px`;
    box = { width: stage.clientWidth, height: stage.clientHeight };
    refreshTitles();
    if (!page.colors) refreshTheme();
    redraw();
  }
  const sizes = new ResizeObserver(measure);
  sizes.observe(stage);
  const themes = new MutationObserver(refreshTheme);
  for (const watched of [document.documentElement, document.body]) {
    themes.observe(watched, { attributeFilter: ["class", "style", "data-jp-theme-light", "data-theme"] });
  }
  listen(window.matchMedia("(prefers-color-scheme: dark)"), "change", refreshTheme);

  const given = model.get("camera"), preset = model.get("views")[firstView];
  camera = given.target ? given : preset ?? { target: [0, 0, 2], yaw: 0, pitch: 0, distance: 2, field_of_view: 60 };
  startPainter();
  refreshTheme();
  measure();
  refreshWords();
  checkKernel();

  return () => {
    cancelAnimationFrame(pending);
    clearTimeout(saveTimer);
    clearTimeout(restTimer);
    sizes.disconnect();
    themes.disconnect();
    undo.forEach((step) => step());
    painter?.release();
    root.remove();
  };
}

export default { render };
