"use strict";
// What all pages share: the data of the page, typed arrays, colours of the theme.
const pageData = (() => {
  const element = document.getElementById("page-data");
  return element ? JSON.parse(element.textContent) : null;
})();
// Okabe and Ito's colours, which the colour-blind tell apart.
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const byId = (name) => document.getElementById(name);
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

// After cividis: from blue to yellow, brighter all the way for every kind of sight; each theme leaves out the end
// that its background would hide.
const ramp = () => isDark()
  ? ["#2f6db5", "#5b83a6", "#87978f", "#b0ad7b", "#d6c863", "#ffea46"]
  : ["#00204d", "#31446b", "#666970", "#8f8768", "#b39b3a", "#d9a900"];
// Colour i, again from the start after six; the first is a brighter blue on a dark page.
const colorOf = (i) => COLORS[i % 6 === 0 && isDark() ? 5 : i % 6 === 5 && isDark() ? 0 : i % 6];
const colorscale = () => ramp().map((color, i, all) => [i / (all.length - 1), color]);

function unpack(array) {
  const text = atob(array.bytes);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const kind = { f4: Float32Array, i2: Int16Array, u2: Uint16Array, u1: Uint8Array }[array.dtype];
  const raw = new kind(bytes.buffer);
  return array.scale === 1 ? raw : Float32Array.from(raw, (x) => x * array.scale);
}

function make(tag, text, attributes) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  return element;
}

// A card with a title and room for a plot.
function addPlot(parent, title, attributes) {
  const card = make("figure", undefined, { class: "card" });
  const heading = make("h3", title);
  const plot = make("div", undefined, { class: "plot", role: "img", ...attributes });
  card.append(heading, plot);
  parent.append(card);
  return { heading, plot };
}

// Plotly reads some tags in labels; a text from the data is shown as it is.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { back: of("--card"), ink: of("--ink"), soft: of("--soft"), grid: of("--grid"), line: of("--line") };
}

function onThemeChange(redraw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function short(value) {
  if (value === null || value === undefined || !isFinite(value)) return "none";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(+value.toPrecision(4));
}

function paintRamps() {
  for (const element of document.querySelectorAll(".ramp")) {
    element.style.background = `linear-gradient(to right, ${ramp().join(",")})`;
  }
}
paintRamps();
onThemeChange(paintRamps);
