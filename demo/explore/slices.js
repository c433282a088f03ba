// Slice slider. Gradio runs this once, with `element`, `props`, `trigger` and `watch`.
// One slice is requested at a time, the next after the last has arrived: requests never pile up.

const find = (selector) => element.querySelector(selector);
const slider = find("input"), canvas = find("canvas"), playButton = find(".ms-play");
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
  slider.setAttribute("aria-valuetext", `slice ${wanted + 1} of ${countSlices()}`);
}

// Draw a bar for each score, tau at half height: grey up to tau, red above it.
function drawMarks() {
  const { scores = [], tau } = props.value ?? {}, style = getComputedStyle(element), dpr = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * dpr);
  canvas.height = Math.round(canvas.clientHeight * dpr);
  const context = canvas.getContext("2d"), step = canvas.width / Math.max(countSlices(), 1);
  const read = scores.filter(([, score]) => score !== null);
  const reach = Math.max(...read.map(([, score]) => Math.abs(score - tau)), 1e-9);
  for (const [index, score] of read) {
    const height = canvas.height * (0.5 + 0.4 * (score - tau) / reach);
    context.fillStyle = style.getPropertyValue(score > tau ? "--mf-bad" : "--mf-bar");
    context.fillRect(index * step, canvas.height - height, Math.max(step - dpr, dpr), height);
  }
}

function listMarked() {
  const marked = (props.value?.scores ?? []).filter(([, score]) => score !== null && score > props.value.tau);
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
  find(".ms-line").textContent = value.line ?? "";
  writeLabel();
  drawMarks();
  listMarked();
}

slider.addEventListener("input", () => { setPlaying(false); requestSlice(Number(slider.value)); });
playButton.addEventListener("click", () => setPlaying(!timer));
document.addEventListener("mf-slice", ({ detail }) => {
  if (detail === "play") setPlaying(!timer);
  else { setPlaying(false); requestSlice(wanted + detail); }
});
new ResizeObserver(drawMarks).observe(canvas);
watch("value", update);
update();
