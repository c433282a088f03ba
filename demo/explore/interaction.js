// User interaction in the viewer: tools, pointers, wheel and keys. Runs after viewer.js.

const MAX_ZOOM = 40, GRAB_PX = 14, ZOOM_STEP = 1.25;
const KEYS = [
  ["+  −  0", "zoom in, zoom out, fit"], ["wheel, pinch", "zoom at the pointer"], ["drag, arrows", "move"],
  ["E", "exact: whole screen pixels for each picture pixel"], ["Shift + drag", "window (across) and level (down)"],
  ["W", "next window"], ["T", "where it sees a tumour, over the scan"], ["O", "error map over the scan"], ["D", "difference amplified more, then from 1 again"],
  ["R", "error and purified of the attacked or the clean scan"], ["M", "original: as in the file, or as the models read it"],
  ["1 … 7", "one picture alone (7: two to compare); again, or Esc: all"], ["[  ]", "move the split of before and after"],
  ["Page Up  Page Down", "slice before, slice after"], ["Space", "play or pause the slices"],
  ["A", "analyse"], ["?", "these keys"],
];
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
const pointers = new Map();

// --- place and window

function updatePlace() {
  const half = 0.5 / state.zoom;
  state.x = clamp(state.x, half, 1 - half);
  state.y = clamp(state.y, half, 1 - half);
  const isFree = state.zoom === 1 && state.drag === "pan"; // a finger then scrolls the page
  for (const { canvas } of PANELS) canvas.style.touchAction = isFree ? "pan-y" : "none";
  draw();
}

function zoomAt(factor, x = state.x, y = state.y) {
  const zoom = clamp(state.zoom * factor, 1, MAX_ZOOM), scale = state.zoom / zoom;
  Object.assign(state, { zoom, x: x + (state.x - x) * scale, y: y + (state.y - y) * scale });
  updatePlace();
}

function zoomToWholePixels() {
  const { canvas } = PANELS.find(({ name }) => !getOnlyPanel() || name === getOnlyPanel());
  const fit = Math.min(canvas.width, canvas.height), times = Math.floor((fit * state.zoom) / SIDE + 1.001);
  state.zoom = clamp((times * SIDE) / fit, 1, MAX_ZOOM);
  updatePlace();
}

function setWindow(low, high, preset) {
  Object.assign(state, { low, high: Math.max(high, low + 1e-6), preset });
  find("[data-set=preset]").value = preset;
  draw();
}

function dragWindow(dx, dy) {
  const width = (state.high - state.low) * Math.exp(dx / 200), centre = (state.low + state.high) / 2 + (dy / 300) * width;
  setWindow(centre - width / 2, centre + width / 2, "");
}

function choosePreset(index) {
  const [, low, high] = view.windows?.[index] ?? ["", 0, 1];
  setWindow(low, high, String(index));
}

// --- tools

function setTool(name, value) {
  if (name === "preset") return value === "" ? draw() : choosePreset(Number(value));
  state[name] = value;
  const control = find(`[data-set=${name}]`);
  if (control.type === "checkbox") control.checked = value;
  else control.value = value;
  const other = { overlay: "tumour", tumour: "overlay" }[name]; // two maps over each other cannot be read
  if (value && other && state[other] && view.clean_where) setTool(other, false);
  draw();
}

function toggleAlone(name) {
  state.alone = state.alone === name ? "" : name;
  arrangePanels();
}

function arrangePanels() {
  const shown = getOnlyPanel();
  root.classList.toggle("mv-alone", Boolean(shown));
  for (const { name, figure, pair: isPair } of PANELS) figure.hidden = shown ? name !== shown : Boolean(isPair);
  findAll("[data-alone]").forEach((b) => b.setAttribute("aria-pressed", String(state.alone === b.dataset.alone)));
  root.classList.toggle("mv-has-scan", Boolean(view.key));
  root.classList.toggle("mv-has-file", Boolean(layers.file && layers.scan));
  root.classList.toggle("mv-has-read", Boolean(layers.clean_error || layers.attacked));
  root.classList.toggle("mv-has-map", Boolean(view.clean_where));
  root.classList.toggle("mv-has-both", Boolean(layers.clean_error && layers.attacked_error));
  updatePlace();
}

function toggleHelp(open = find(".mv-keys").hidden) {
  find(".mv-keys").hidden = !open;
  find(".mv-keys-button").setAttribute("aria-expanded", String(open));
  (open ? find(".mv-keys button") : root).focus({ preventScroll: true });
}

const ACTIONS = {
  "+": () => zoomAt(ZOOM_STEP), "=": () => zoomAt(ZOOM_STEP), "-": () => zoomAt(1 / ZOOM_STEP), 0: () => zoomAt(0),
  e: zoomToWholePixels,
  w: () => choosePreset((Number(state.preset || -1) + 1) % (view.windows?.length || 1)),
  t: () => setTool("tumour", !state.tumour),
  o: () => setTool("overlay", !state.overlay),
  d: () => setTool("gain", state.gain >= 20 ? 1 : Math.min(state.gain + (state.gain < 5 ? 4 : 5), 20)),
  r: () => setTool("reading", getReading() === "clean" ? "attacked" : "clean"),
  m: () => setTool("original", state.original === "file" ? "scan" : "file"),
  "[": () => setTool("split", clamp(state.split - 0.05, 0, 1)), "]": () => setTool("split", clamp(state.split + 0.05, 0, 1)),
  a: () => document.querySelector("#analyse")?.click(),
  "?": () => toggleHelp(),
  escape: () => (find(".mv-keys").hidden ? toggleAlone(state.alone) : toggleHelp(false)),
  pageup: () => requestSlice(-1), pagedown: () => requestSlice(1), " ": () => requestSlice("play"),
  arrowleft: () => moveBy(-1, 0), arrowright: () => moveBy(1, 0), arrowup: () => moveBy(0, -1), arrowdown: () => moveBy(0, 1),
};
PANELS.forEach(({ name }, i) => { ACTIONS[i + 1] = () => toggleAlone(name); });

const requestSlice = (detail) => document.dispatchEvent(new CustomEvent("mf-slice", { detail }));

function moveBy(dx, dy) { // the values at the centre are then shown
  state.x += (0.1 * dx) / state.zoom;
  state.y += (0.1 * dy) / state.zoom;
  updatePlace();
  state.cursor = [state.x, state.y];
}

document.addEventListener("keydown", (event) => {
  if (!element.isConnected || event.ctrlKey || event.metaKey || event.altKey) return;
  const { activeElement: focus } = document, control = event.target.closest?.("input, select, textarea, button");
  const isHere = root.matches(":hover") || element.contains(focus) || document.querySelector("#slices")?.contains(focus);
  const isTyping = control && control.tagName !== "BUTTON" && control.type !== "checkbox" && !/^(escape|\?)$/i.test(event.key);
  const act = ACTIONS[event.key.toLowerCase()];
  if (!act || !isHere || isTyping || (control && event.key === " ")) return;
  event.preventDefault();
  act();
});

root.addEventListener("input", ({ target }) => {
  const { set: name } = target.dataset;
  if (name) setTool(name, target.type === "checkbox" ? target.checked : target.type === "range" ? Number(target.value) : target.value);
});

root.addEventListener("click", ({ target }) => {
  const { do: action, drag, alone: name } = target.closest("button")?.dataset ?? {};
  if (action) ACTIONS[action]();
  if (name) toggleAlone(name);
  if (!drag) return;
  state.drag = drag;
  findAll("[data-drag]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.drag === drag)));
  updatePlace();
});

// --- pointers

function locatePointer(canvas, { clientX, clientY }) {
  const box = canvas.getBoundingClientRect(), dpr = canvas.width / box.width, [left, top, side] = locateSquare(canvas);
  return [((clientX - box.left) * dpr - left) / side, ((clientY - box.top) * dpr - top) / side];
}

function isOnSplit(panel, event) {
  const box = panel.canvas.getBoundingClientRect();
  return panel.pair && Math.abs(event.clientX - box.left - state.split * box.width) < GRAB_PX;
}

function handleDrag(panel, event, before) {
  const dx = event.clientX - before.x, dy = event.clientY - before.y, box = panel.canvas.getBoundingClientRect();
  const css = locateSquare(panel.canvas)[2] / (panel.canvas.width / box.width);
  if (pointers.size === 2) return handlePinch(panel, event, before, css);
  if (before.split) return setTool("split", clamp((event.clientX - box.left) / box.width, 0, 1));
  if (before.window) return dragWindow(dx, dy);
  state.x -= dx / css;
  state.y -= dy / css;
  updatePlace();
}

function handlePinch(panel, event, before, css) {
  const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
  const measureDistance = (point) => Math.hypot(point.x - other.x, point.y - other.y);
  const after = { x: event.clientX, y: event.clientY };
  state.x -= (after.x - before.x) / 2 / css;
  state.y -= (after.y - before.y) / 2 / css;
  const middle = locatePointer(panel.canvas, { clientX: (after.x + other.x) / 2, clientY: (after.y + other.y) / 2 });
  zoomAt(measureDistance(after) / Math.max(measureDistance(before), 1), ...middle);
}

for (const panel of PANELS) {
  const { canvas } = panel;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    canvas.setPointerCapture(event.pointerId);
    const isWindow = event.shiftKey || state.drag === "window";
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, window: isWindow, split: isOnSplit(panel, event) });
    root.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (before) {
      handleDrag(panel, event, before);
      pointers.set(event.pointerId, { ...before, x: event.clientX, y: event.clientY });
    }
    canvas.style.cursor = isOnSplit(panel, event) ? "ew-resize" : state.drag === "window" || event.shiftKey ? "ns-resize" : "crosshair";
    hovered = canvas;
    state.cursor = locatePointer(canvas, event);
    draw();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("pointerleave", () => { hovered = null; state.cursor = null; draw(); });
  canvas.addEventListener("dblclick", () => toggleAlone(panel.name));
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || (event.deltaY > 0 && state.zoom === 1)) return; // the page scrolls
    event.preventDefault();
    zoomAt(Math.exp(-clamp(event.deltaY, -120, 120) / 400), ...locatePointer(canvas, event));
  }, { passive: false });
  new ResizeObserver(draw).observe(canvas);
}

// --- a new value

function update() {
  const next = props.value ?? {}, old = layers, isOther = next.key !== view.key;
  const decodeNext = (name, black, white) =>
    next[name] && (old[name]?.raw.data === next[name].data ? old[name] : decode(next[name], black, white));
  view = next;
  layers = { file: decodeNext("file", next.black, next.white) };
  for (const name of ["scan", "attacked", "clean_error", "attacked_error", "clean_evidence", "attacked_evidence", "clean_purified", "attacked_purified"]) {
    layers[name] = decodeNext(name, 0, 255);
  }
  for (const name of Object.keys(next).filter((name) => /_map\d+$/.test(name))) layers[name] = decodeNext(name, 0, 1);
  if (layers.scan && layers.attacked) {
    const sources = [layers.scan, layers.attacked];
    const isSame = old.change?.sources.every((source, i) => source === sources[i]);
    layers.change = isSame ? old.change : subtract(...sources);
  }
  if (isOther) {
    Object.assign(state, START);
    const named = (next.windows ?? []).map(([name], i) => new Option(name, i));
    find("[data-set=preset]").replaceChildren(...named, new Option("own setting", ""));
  }
  // a reading that cannot judge has no maps: the other one's make the list
  const count = Math.max(0, ...Object.keys(layers).map((name) => 1 + Number(name.match(/_map(\d+)$/)?.[1] ?? -1)));
  const experts = Array.from({ length: count }, (_, k) => new Option(k ? `expert ${k}` : "all experts", k));
  find("[data-set=expert]").replaceChildren(...experts);
  setTool("expert", experts[state.expert] ? state.expert : "0");
  const pairs = find("[data-set=pair]");
  for (const option of pairs.options) option.disabled = !isThere(option.value);
  pairs.value = choosePair();
  arrangePanels();
}

for (const name of ["gain", "overlay", "opacity", "from", "cover", "level", "tumour", "reading", "original", "pair", "split"]) setTool(name, state[name]);
find(".mv-keys dl").replaceChildren(...KEYS.flatMap(([keys, what]) => [["dt", keys], ["dd", what]]).map(([tag, text]) => {
  const item = document.createElement(tag);
  item.textContent = text;
  return item;
}));
watch("value", update);
update();
