// The slice slider. Gradio runs this once, with `element`, `props`, `trigger` and `watch`.
// One slice is asked for at a time: the next when the last has come, so that fast dragging and
// slow lines never pile up.

const find = (selector) => element.querySelector(selector);
const slider = find("input"), canvas = find("canvas"), playButton = find(".ms-play");
const PLAY_MS = 150, LOST_MS = 8000;
let key = null, wanted = 0, asked = null, askedAt = 0, timer = null;

const count = () => props.value?.count ?? 0;

function ask(index) {
  wanted = Math.min(Math.max(index, 0), count() - 1);
  slider.value = wanted;
  label();
  const isWaiting = asked !== null && performance.now() - askedAt < LOST_MS;
  if (isWaiting || wanted === props.value?.index) return;
  asked = wanted;
  askedAt = performance.now();
  trigger("input", { index: wanted });
}

function play(on) {
  clearInterval(timer);
  timer = on && count() > 1 ? setInterval(() => {
    if (asked === null) ask((wanted + 1) % count());
  }, PLAY_MS) : null;
  playButton.setAttribute("aria-pressed", String(Boolean(timer)));
  playButton.textContent = timer ? "Pause" : "Play";
}

function label() {
  find(".ms-at").textContent = count() ? `${wanted + 1} / ${count()}` : "";
  slider.setAttribute("aria-valuetext", `slice ${wanted + 1} of ${count()}`);
}

// A bar for each score, tau at half height: grey up to it, red above it.
function drawMarks() {
  const { scores = [], tau } = props.value ?? {}, style = getComputedStyle(element), dpr = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * dpr);
  canvas.height = Math.round(canvas.clientHeight * dpr);
  const context = canvas.getContext("2d"), step = canvas.width / Math.max(count(), 1);
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
    button.onclick = () => ask(index);
    return button;
  }));
  if (marked.length > 24) place.append(` and ${marked.length - 24} more`);
}

function update() {
  const value = props.value ?? {};
  if (value.key !== key) {
    key = value.key;
    asked = null;
    wanted = value.index ?? 0;
    play(false);
  }
  if (asked !== null && value.index === asked) {
    asked = null;
    if (wanted !== value.index) ask(wanted);
  }
  slider.max = Math.max(count() - 1, 0);
  slider.value = wanted;
  find(".ms-line").textContent = value.line ?? "";
  label();
  drawMarks();
  listMarked();
}

slider.addEventListener("input", () => { play(false); ask(Number(slider.value)); });
playButton.addEventListener("click", () => play(!timer));
document.addEventListener("mf-slice", ({ detail }) => {
  if (detail === "play") play(!timer);
  else { play(false); ask(wanted + detail); }
});
new ResizeObserver(drawMarks).observe(canvas);
watch("value", update);
update();
