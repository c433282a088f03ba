// Linked viewer. Gradio runs this once, with `element`, `props` and `watch`, after layers.js.
// All panels share one place (zoom, centre, cursor) in the unit square that the models read, and
// one window: a range of g, where 0 is what the models see as black and 1 as white.

const SIDE = 224;
const root = element.querySelector(".mv");
const find = (selector) => root.querySelector(selector);
const findAll = (selector) => [...root.querySelectorAll(selector)];
const START = { zoom: 1, x: 0.5, y: 0.5, low: 0, high: 1, preset: "0", cursor: null };
const state = {
  ...START, drag: "pan", gain: 20, overlay: false, opacity: 0.6, from: 12, reading: "attacked",
  tumour: true, cover: 0.4, level: 9, expert: "0", original: "file", pair: "scan|attacked", split: 0.5, alone: "",
};
const ALONE = '<svg width="12" height="12" fill="none" stroke="currentColor" stroke-width="1.6" aria-hidden="true">' +
  '<path d="M1 4V1h3M8 1h3v3M11 8v3H8M4 11H1V8"/></svg>';
const BARS = { grey: "linear-gradient(to right, #000, #fff)", change: buildGradient(TABLES.change), error: buildGradient(TABLES.error), evidence: buildGradient(TABLES.error) };
let view = {}, layers = {};

// name, title, colour bar and placeholder of each picture; layers are functions of the state
const PANELS = [
  { name: "original", title: "Original", empty: "Choose a scan to begin.", bar: "grey", layer: () => (state.original === "file" && layers.file) || layers.scan || layers.file, reading: "clean" },
  { name: "attacked", title: "Attacked", empty: "The scan after the attack.", layer: () => layers.attacked, reading: "attacked" },
  { name: "purified", title: "Purified", empty: "The scan after being purified.", layer: () => layers[`${getReading()}_purified`] },
  { name: "change", title: "Difference", empty: "What the attack has changed.", bar: "change", rule: () => ["change", state.gain], layer: () => layers.change },
  { name: "error", title: "Error map", empty: "What the autoencoder cannot predict.", bar: "error", rule: () => ["error", props.error_top], layer: () => layers[`${getReading()}_error`] },
  { name: "evidence", title: "Evidence", empty: "Where the attack shows most.", bar: "evidence", rule: () => ["error", props.evidence_top], layer: () => layers[`${getReading()}_evidence`] },
  { name: "compare", title: "Compare", empty: "Two pictures and a split.", pair: true, layer: () => getPairLayers()[1] },
];

const getReading = () => (layers[`${state.reading}_error`] ? state.reading : "clean");
const splitNames = (text) => text.split("|");
const isThere = (text) => splitNames(text).every((name) => layers[name]);
const choosePair = () => [state.pair, "scan|attacked", "scan|clean_purified"].find(isThere) ?? state.pair;
const getPairLayers = () => splitNames(choosePair()).map((name) => layers[name]);
const getThreshold = () => props.thresholds[state.level];
const getGreyRule = () => ["grey", state.low, state.high];
// one picture fills the place while the slices of a series are browsed
const getOnlyPanel = () => state.alone || (view.slices > 1 && !layers.clean_error ? "original" : "");
const formatNumber = (v) => (Number.isInteger(v) ? String(v) : v.toPrecision(4));

find(".mv-ramp").style.background = BARS.error;
for (const panel of PANELS) {
  const figure = document.createElement("figure");
  figure.className = "mv-panel";
  figure.dataset.panel = panel.name;
  figure.innerHTML = `<figcaption><b></b><span class="mv-value"></span>
    <button type="button" data-alone="${panel.name}" aria-pressed="false" aria-label="${panel.title}, alone"
      title="Alone, or all again (double click)">${ALONE}</button></figcaption>
    <div class="mv-box"><canvas role="img"></canvas><p class="mv-blank"></p></div>
    <div class="mv-foot"><div class="mv-bar"></div><div class="mv-ticks"></div><p class="mv-note"></p></div>`;
  figure.querySelector("b").textContent = panel.title;
  if (panel.pair) figure.querySelector(".mv-value").replaceWith(find(".mv-pair"));
  if (panel.pair) figure.querySelector(".mv-bar").replaceWith(find(".mv-split"));
  if (panel.name === "original") figure.querySelector("b").after(find(".mv-original"));
  if (panel.bar) figure.querySelector(".mv-bar").style.background = BARS[panel.bar];
  figure.querySelector("canvas").setAttribute("aria-label", panel.title);
  find(".mv-panels").append(figure);
  panel.figure = figure;
  panel.canvas = figure.querySelector("canvas");
}

// --- drawing

// Return the unit square's place on a canvas: left, top, side, in whole pixels.
function locateSquare(canvas) {
  const side = Math.round(Math.min(canvas.width, canvas.height) * state.zoom);
  return [Math.round(canvas.width / 2 - state.x * side), Math.round(canvas.height / 2 - state.y * side), side];
}

function drawLayer(context, layer, rule) {
  const [left, top, side] = locateSquare(context.canvas);
  const [x, y, width, height] = layer.rect;
  const scale = (width * side) / layer.width;
  const isSoft = rule[0] === "grey" && scale < 3 && !Number.isInteger(scale);
  context.imageSmoothingEnabled = scale < 1 || isSoft;
  context.imageSmoothingQuality = "high";
  context.drawImage(paintLayer(layer, ...rule), left + x * side, top + y * side, width * side, height * side);
}

// Draw a scan and what one reading of it shows over it: the tumour map, or the error map.
function drawScan(context, layer, reading) {
  drawLayer(context, layer, getGreyRule());
  const error = layers[`${reading}_error`], map = layers[`${reading}_map${state.expert}`];
  if (state.overlay && error) drawLayer(context, error, ["overlay", props.error_top, state.from, state.opacity]);
  if (!state.tumour || !map) return;
  drawLayer(context, map, ["overlay", 1, getThreshold(), state.cover]);
  drawOutline(context, map, getThreshold());
}

// Outline the cells of a map from a threshold on, along their edges.
function drawOutline(context, map, threshold) {
  const [left, top, side] = locateSquare(context.canvas), dpr = window.devicePixelRatio || 1;
  const { width, height } = map, limit = Math.round(threshold / map.scale);
  const isIn = (column, row) => column >= 0 && row >= 0 && column < width && row < height && map.values[row * width + column] >= limit;
  const path = new Path2D(), toX = (column) => left + (column / width) * side, toY = (row) => top + (row / height) * side;
  const addEdge = (x, y, across, down) => { path.moveTo(toX(x), toY(y)); path.lineTo(toX(x + across), toY(y + down)); };
  for (let row = 0; row <= height; row++) for (let column = 0; column <= width; column++) {
    if (isIn(column, row) !== isIn(column - 1, row)) addEdge(column, row, 0, 1);
    if (isIn(column, row) !== isIn(column, row - 1)) addEdge(column, row, 1, 0);
  }
  context.lineCap = "square";
  for (const [colour, wide] of [["#000", 3], ["#2dd4bf", 1.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = wide * dpr;
    context.stroke(path);
  }
}

function drawPair(context) {
  const [before, after] = getPairLayers(), [first, second] = splitNames(choosePair());
  const edge = Math.round(context.canvas.width * state.split);
  const nameReading = (name) => (name.startsWith("attacked") ? "attacked" : "clean");
  drawScan(context, after, nameReading(second));
  context.save();
  context.beginPath();
  context.rect(0, 0, edge, context.canvas.height);
  context.clip();
  context.fillRect(0, 0, edge, context.canvas.height);
  drawScan(context, before, nameReading(first));
  context.restore();
  context.fillStyle = "#2dd4bf";
  context.fillRect(edge - 1, 0, 2, context.canvas.height);
}

function drawMarks(context, isOwn) {
  const { width, height } = context.canvas, dpr = window.devicePixelRatio || 1;
  context.font = `600 ${12 * dpr}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.fillStyle = "#ffd479";
  context.shadowColor = "#000";
  context.shadowBlur = 3 * dpr;
  const at = [[8, height / 2], [width - 8 * dpr, height / 2], [width / 2, 9 * dpr], [width / 2, height - 9 * dpr]];
  (view.marks ?? []).forEach((mark, i) => {
    context.textAlign = ["left", "right", "center", "center"][i];
    context.fillText(mark, ...at[i]);
  });
  if (state.cursor && !isOwn) {
    const [left, top, side] = locateSquare(context.canvas), [x, y] = state.cursor;
    const [cx, cy] = [Math.round(left + x * side), Math.round(top + y * side)];
    context.fillStyle = "#2dd4bf";
    for (const sign of [-1, 1]) {
      context.fillRect(cx + sign * 7 * dpr - 3 * dpr, cy, 6 * dpr, dpr);
      context.fillRect(cx, cy + sign * 7 * dpr - 3 * dpr, dpr, 6 * dpr);
    }
  }
  context.shadowBlur = 0;
}

function drawPanel(panel) {
  const { canvas } = panel, dpr = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * dpr), height = Math.round(canvas.clientHeight * dpr);
  if (!width || !height) return;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  const layer = panel.layer();
  panel.figure.classList.toggle("mv-waiting", !layer);
  if (!layer || (panel.pair && !getPairLayers()[0])) return;
  if (panel.pair) drawPair(context);
  else if (panel.rule) drawLayer(context, layer, panel.rule());
  else drawScan(context, layer, panel.reading);
  canvas.dataset.place = locateSquare(canvas).join(); // the tests read pixels back
  drawMarks(context, canvas === hovered);
}

let frame = 0, hovered = null;
function draw() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    PANELS.forEach(drawPanel);
    writeReadout();
  });
}

// --- words and numbers around the pictures

function writeReadout() {
  const { black = 0, white = 255 } = view, span = white - black;
  const level = black + ((state.low + state.high) / 2) * span, width = Math.abs((state.high - state.low) * span);
  find(".mv-window").textContent = view.key ? `Window: level ${formatNumber(Math.round(level * 10) / 10)}, width ${formatNumber(Math.round(width * 10) / 10)}` : "";
  const ends = [state.low, state.high].map((g) => formatNumber(Math.round((black + g * span) * 10) / 10));
  const most = Math.round(255 / state.gain), top = Math.round(props.error_top);
  const ticks = { grey: ends, change: [`-${most}`, "0", `+${most} levels`], error: ["0", `${top} levels and more`], evidence: ["as usual", "far above usual"] };
  for (const { name, bar, figure, empty } of PANELS) {
    if (bar) write(figure, ".mv-ticks", ...ticks[bar].map(createCell));
    const [tone, words] = view.captions?.[`${getReading()}_${name}`] ?? view.captions?.[name] ?? ["", ""];
    write(figure, ".mv-note", words && name === "change" ? `${words}, shown x ${state.gain}` : words);
    figure.querySelector(".mv-note").dataset.tone = tone;
    write(figure, ".mv-blank", view.blanks?.[`${getReading()}_${name}`] ?? view.blanks?.[name] ?? empty);
  }
  for (const name of ["gain", "from"]) find(`[data-for=${name}]`).textContent = state[name];
  writeWhere();
  writeCursorValues();
}

// Say where each reading sees a tumour, at the chosen threshold and of the chosen expert.
function writeWhere() {
  const percent = Math.round(getThreshold() * 100), place = find(".mv-where");
  find("[data-for=level]").textContent = percent;
  find("[data-set=level]").setAttribute("aria-valuetext", `${percent} %`);
  find(".mv-key span").textContent = `${percent} %`;
  const said = ["clean", "attacked"].filter((reading) => view[`${reading}_where`]).map((reading) => {
    const where = view[`${reading}_where`];
    return [`${reading === "clean" ? "Clean" : "Attacked"} scan`, typeof where === "string" ? where : where[state.expert][state.level]];
  });
  const text = JSON.stringify(said);
  if (place.dataset.said === text) return; // a live region speaks only of what is new
  place.dataset.said = text;
  place.replaceChildren(...said.flatMap(([name, words]) => [["dt", name], ["dd", words]]).map(([tag, words]) => Object.assign(document.createElement(tag), { textContent: words })));
  for (const { name, title, reading, canvas } of PANELS) {
    const words = said.find(([who]) => who.toLowerCase().startsWith(reading ?? "-"))?.[1];
    canvas.setAttribute("aria-label", words ? `${title}. ${words}` : title);
  }
}

function createCell(text) {
  const span = document.createElement("span");
  span.textContent = text;
  return span;
}

const write = (figure, selector, ...content) => figure.querySelector(selector).replaceChildren(...content);

function writeCursorValues() {
  const [x, y] = state.cursor ?? [-1, -1];
  const number = (layer) => (layer ? readValue(layer, x, y) : null);
  for (const { name, figure, layer, pair: isPair } of PANELS) {
    if (isPair) continue;
    const value = number(layer());
    const sign = name === "change" && value > 0 ? "+" : "";
    write(figure, ".mv-value", value === null ? "" : name === "error" || name === "evidence" ? value.toFixed(1) : sign + formatNumber(value));
  }
  const own = number(layers.file), grey = number(layers.scan), reduced = view.file?.reduced > 1;
  const said = [];
  if (view.file) said.push(`the file's value ${own === null ? "-" : formatNumber(own)}${reduced ? ` (mean of ${view.file.reduced} x ${view.file.reduced} pixels)` : ""}`);
  if (layers.scan) said.push(`the models read ${grey ?? "-"} of 255`);
  const at = `x ${Math.floor(x * SIDE)}, y ${Math.floor(y * SIDE)} of ${SIDE}`;
  find(".mv-place").textContent = state.cursor ? ["", at, ...said].join(" · ") : "";
}
