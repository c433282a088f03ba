// Layers as demo/explore/viewer.py sends them, and the rules that colour them. Runs before viewer.js,
// in the same scope. A layer's numbers are never changed, resized or smoothed here.

const TYPES = { u1: Uint8Array, i2: Int16Array, u2: Uint16Array, f4: Float32Array };
const WHOLE = [0, 0, 1, 1];

const decodeBytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const TABLES = { error: decodeBytes(props.error_table), change: decodeBytes(props.change_table) };

// {values, width, height, scale, rect, black, white}; rect: the layer's place in the unit square
function decode(raw, black, white) {
  const [height, width] = raw.shape;
  const values = new TYPES[raw.type](decodeBytes(raw.data).buffer);
  return { values, width, height, scale: raw.scale, rect: raw.rect ?? WHOLE, black, white, raw, painted: {} };
}

function subtract(before, after) {
  const values = Int16Array.from(after.values, (v, i) => v - before.values[i]);
  return { ...after, values, painted: {}, sources: [before, after] };
}

// Each rule writes RGBA. Greys: 0 is the window's low end, 255 its high end.
const RULES = {
  grey(layer, out, low, high) {
    const k = 255 / ((layer.white - layer.black) * (high - low));
    const c = -(layer.black * k) - (255 * low) / (high - low);
    layer.values.forEach((v, i) => { // a clamped array rounds to the nearest of 0..255
      out[4 * i] = out[4 * i + 1] = out[4 * i + 2] = v * k + c;
      out[4 * i + 3] = 255;
    });
  },
  error(layer, out, top) {
    layer.values.forEach((v, i) => {
      writeColour(out, i, TABLES.error, Math.min(Math.round((v * layer.scale * 255) / top), 255), 255);
    });
  },
  overlay(layer, out, top, from, opacity) {
    layer.values.forEach((v, i) => {
      const error = v * layer.scale;
      const seen = error >= from ? Math.round(opacity * 255) : 0;
      writeColour(out, i, TABLES.error, Math.min(Math.round((error * 255) / top), 255), seen);
    });
  },
  change(layer, out, gain) { // the table's middle, 128, is no change
    layer.values.forEach((v, i) => {
      const share = Math.min(Math.max((v * gain) / 255, -1), 1);
      writeColour(out, i, TABLES.change, 128 + Math.round(share * 128), 255);
    });
  },
};

function writeColour(out, i, table, entry, alpha) {
  for (let c = 0; c < 3; c++) out[4 * i + c] = table[3 * entry + c];
  out[4 * i + 3] = alpha;
}

// Return the layer as a canvas of its own size, painted again only if the rule's settings changed.
function paintLayer(layer, rule, ...settings) {
  const key = settings.join();
  if (layer.painted[rule]?.key !== key) {
    const canvas = layer.painted[rule]?.canvas ?? document.createElement("canvas");
    Object.assign(canvas, { width: layer.width, height: layer.height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(layer.width, layer.height);
    RULES[rule](layer, image.data, ...settings);
    context.putImageData(image, 0, 0);
    layer.painted[rule] = { key, canvas };
  }
  return layer.painted[rule].canvas;
}

// Return the layer's value at a point of the unit square, or null outside the layer.
function readValue(layer, x, y) {
  const [left, top, width, height] = layer.rect;
  const column = Math.floor(((x - left) / width) * layer.width);
  const row = Math.floor(((y - top) / height) * layer.height);
  const inside = column >= 0 && row >= 0 && column < layer.width && row < layer.height;
  return inside ? layer.values[row * layer.width + column] * layer.scale : null;
}

// Return a CSS gradient through a table's colours.
function buildGradient(table) {
  const stops = [];
  for (let i = 0; i < table.length; i += 3 * 16) stops.push(`rgb(${table.slice(i, i + 3).join()})`);
  return `linear-gradient(to right, ${stops.join()})`;
}
