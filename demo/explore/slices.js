// Slice slider. Gradio runs this once, with `element`, `props`, `trigger` and `watch`.
// One slice is requested at a time, the next after the last has arrived: requests never pile up.

const find = (selector) => element.querySelector(selector);
const slider = find("input"), canvases = [...element.querySelectorAll("canvas")], playButton = find(".ms-play");
const PLAY_MS = 150, TIMEOUT_MS = 8000;
let key = null, wanted = 0, requested = null, requestedAt = 0, timer = null;

const countSlices = () => props.value?.count ?? 0;

function requestSlice(index) {
  wanted = Math.min(Math.max(index, 0), countSlices() - 1);
  slider.value = wanted;
  writeLabel();
  const isPending = requested !== null && performance.now() - requestedAt < TIMEOUT_MS;
  if (isPending || wanted === props.value?.index) return;
  requested = wanted;
  requestedAt = performance.now();
  trigger("input", { index: wanted });
}

function setPlaying(on) {
  clearInterval(timer);
  timer = on && countSlices() > 1 ? setInterval(() => {
    if (requested === null) requestSlice((wanted + 1) % countSlices());
  }, PLAY_MS) : null;
  playButton.setAttribute("aria-pressed", String(Boolean(timer)));
  playButton.textContent = timer ? "Pause" : "Play";
}

function writeLabel() {
  find(".ms-at").textContent = countSlices() ? `${wanted + 1} / ${countSlices()}` : "";
  const read = (name) => props.value?.[name]?.find(([index]) => index === wanted)?.[1];
  const percent = (share) => `${Math.round(share * 100)} %`, said = [`slice ${wanted + 1} of ${countSlices()}`];
  if (read("tumour") !== undefined) said.push(`tumour ${percent(read("tumour"))}`);
  if (read("area") !== undefined) said.push(`tumour map ${percent(read("area"))} of the head`);
  slider.setAttribute("aria-valuetext", said.join(", "));
  drawStrips();
}

// height of a bar in [0, 1], the line, and whether the bar is above it
const STRIPS = {
  tumour: () => ({ line: 0.5, scale: (p) => p, isHigh: (p) => p >= 0.5, high: "--mf-accent" }),
  area: () => ({ scale: (share) => Math.min(share / 0.1, 1), isHigh: () => false }),
  scores: ({ scores = [], tau }) => {
    const reach = Math.max(...scores.map(([, score]) => Math.abs(score - tau)), 1e-9);
    return { line: 0.5, scale: (score) => 0.5 + (0.4 * (score - tau)) / reach, isHigh: (score) => score > tau, high: "--mf-bad" };
  },
};

function drawStrips() {
  const value = props.value ?? {};
  for (const canvas of canvases) {
    const found = value[canvas.dataset.strip] ?? [];
    canvas.hidden = canvas.previousElementSibling.hidden = !found.length;
    if (found.length) drawStrip(canvas, found, STRIPS[canvas.dataset.strip](value));
  }
}

function drawStrip(canvas, found, { line, scale, isHigh, high }) {
  const style = getComputedStyle(element), dpr = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * dpr);
  canvas.height = Math.round(canvas.clientHeight * dpr);
  const context = canvas.getContext("2d"), step = canvas.width / Math.max(countSlices(), 1);
  const fill = (name, ...box) => { context.fillStyle = style.getPropertyValue(name); context.fillRect(...box); };
  fill("--mf-pick", wanted * step, 0, Math.max(step, dpr), canvas.height);
  for (const [index, number] of found) {
    const height = Math.max(canvas.height * scale(number), dpr);
    fill(isHigh(number) ? high : "--mf-bar", index * step, canvas.height - height, Math.max(step - dpr, dpr), height);
  }
  if (line) fill("--mf-soft", 0, Math.round(canvas.height * (1 - line)), canvas.width, dpr);
}

function listMarked() {
  const marked = (props.value?.scores ?? []).filter(([, score]) => score > props.value.tau);
  const place = find(".ms-found");
  place.replaceChildren(...marked.slice(0, 24).map(([index]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = index + 1;
    button.setAttribute("aria-label", `Go to marked slice ${index + 1}`);
    button.onclick = () => requestSlice(index);
    return button;
  }));
  if (marked.length > 24) place.append(` and ${marked.length - 24} more`);
}

// Write a live region, which speaks whenever it is written, only where its words are new.
function write(selector, words) {
  const place = find(selector);
  if (place.textContent !== words) place.textContent = words;
}

function writeAnswer({ answer = "", best }) {
  const place = find(".ms-show"), said = JSON.stringify([answer, best]);
  if (place.dataset.said === said) return;
  place.dataset.said = said;
  write(".ms-answer", answer);
  place.replaceChildren();
  if (!answer || !Number.isInteger(best)) return;
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: `Show slice ${best + 1}` });
  button.onclick = () => requestSlice(best);
  place.append(button);
}

function update() {
  const value = props.value ?? {};
  if (value.key !== key) {
    key = value.key;
    requested = null;
    wanted = value.index ?? 0;
    setPlaying(false);
  }
  if (requested !== null && value.index === requested) {
    requested = null;
    if (wanted !== value.index) requestSlice(wanted);
  }
  slider.max = Math.max(countSlices() - 1, 0);
  slider.value = wanted;
  write(".ms-line", value.line ?? "");
  writeAnswer(value);
  writeLabel();
  listMarked();
}

slider.addEventListener("input", () => { setPlaying(false); requestSlice(Number(slider.value)); });
playButton.addEventListener("click", () => setPlaying(!timer));
document.addEventListener("mf-slice", ({ detail }) => {
  if (detail === "play") setPlaying(!timer);
  else { setPlaying(false); requestSlice(wanted + detail); }
});
for (const canvas of canvases) {
  canvas.addEventListener("pointerdown", (event) => {
    const { left, width } = canvas.getBoundingClientRect();
    setPlaying(false);
    requestSlice(Math.floor(((event.clientX - left) / width) * countSlices()));
  });
}
new ResizeObserver(drawStrips).observe(find(".ms-track"));
watch("value", update);
update();
