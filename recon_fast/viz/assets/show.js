"use strict";
// The page of `recon-fast show`: one cloud at a time, all views with one camera.
const START = { eye: { x: 0.74, y: -0.98, z: 0.54 }, center: { x: 0, y: 0, z: 0 }, up: { x: 0, y: 0, z: 1 } };
const state = { cloud: 0, block: 0, head: 0, camera: structuredClone(START), plots: [] };
const decoded = new Map();

function cloudOf(index) {
  if (!decoded.has(index)) {
    const raw = pageData.clouds[index];
    const cloud = { ...raw };
    for (const name of ["points", "groups", "masked", "rebuilt", "chamfer", "attention", "peak"]) {
      if (raw[name]) cloud[name] = unpack(raw[name]);
    }
    cloud.shapes = Object.fromEntries(Object.keys(raw).map((name) => [name, raw[name] && raw[name].shape]));
    decoded.set(index, cloud);
  }
  return decoded.get(index);
}

// Points as plotly's axes: its z is up, ours is y.
function markers(points, rows, style) {
  const at = (axis, sign) => rows.map((row) => sign * points[3 * row + axis]);
  return {
    type: "scatter3d", mode: "markers", x: at(0, 1), y: at(2, -1), z: at(1, 1),
    marker: { size: 2.4, line: { width: 0 }, opacity: 1, ...style.marker },
    text: style.text, hovertemplate: style.text ? "%{text}<extra></extra>" : undefined,
    hoverinfo: style.text ? "text" : "skip",
  };
}

function layout() {
  const axis = { visible: false, range: [-1.08, 1.08], autorange: false };
  return {
    margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", showlegend: false, uirevision: "keep",
    scene: { xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "cube", camera: state.camera, dragmode: "turntable",
      bgcolor: "rgba(0,0,0,0)" },
  };
}

function addView(parent, title, traces) {
  const { heading, plot } = addPlot(parent, title, { tabindex: "0", "aria-label": title });
  plot.addEventListener("keydown", (event) => {
    const turn = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "in", "-": "out" };
    if (turn[event.key]) { event.preventDefault(); moveCamera(turn[event.key]); }
  });
  state.plots.push({ plot, heading, title, traces, ready: false });
}

// The views take over the camera of one of them, or of the buttons (source null). What comes while they do so is
// done afterwards; their own events, which only repeat what they were told, are not listened to.
let settling = false, waiting = null;
function follow(source, camera) {
  if (!camera || (source && source.led)) return;
  state.camera = structuredClone(camera);
  if (settling) { waiting = { source }; return; }
  settling = true;
  requestAnimationFrame(() => {
    const others = state.plots.filter((view) => view.ready && view !== source);
    Promise.all(others.map((view) => {
      view.led = true;
      return Plotly.relayout(view.plot, { "scene.camera": structuredClone(state.camera) })
        .finally(() => { view.led = false; });
    })).finally(() => {
      settling = false;
      const next = waiting;
      waiting = null;
      if (next) follow(next.source, state.camera);
    });
  });
}

function moveCamera(how) {
  const camera = structuredClone(how === "reset" ? START : state.camera);
  const eye = camera.eye;
  const flat = Math.hypot(eye.x, eye.y), far = Math.hypot(flat, eye.z);
  let angle = Math.atan2(eye.y, eye.x), tilt = Math.atan2(eye.z, flat), away = far;
  if (how === "left") angle -= Math.PI / 12;
  if (how === "right") angle += Math.PI / 12;
  if (how === "up") tilt = Math.min(tilt + Math.PI / 12, 1.5);
  if (how === "down") tilt = Math.max(tilt - Math.PI / 12, -1.5);
  if (how === "in") away = far / 1.2;
  if (how === "out") away = far * 1.2;
  camera.eye = { x: away * Math.cos(tilt) * Math.cos(angle), y: away * Math.cos(tilt) * Math.sin(angle),
    z: away * Math.sin(tilt) };
  follow(null, camera);
}

function draw() {
  const cloud = cloudOf(state.cloud);
  for (const view of state.plots) {
    const { traces, title } = view.traces(cloud);
    view.heading.textContent = title || view.title;
    view.plot.setAttribute("aria-label", `${view.heading.textContent}; arrow keys turn, + and - zoom`);
    const drawn = Plotly.react(view.plot, traces, layout(), { displayModeBar: false, responsive: true,
      scrollZoom: false });
    if (view.ready) continue;
    view.ready = true;
    drawn.then(() => {
      for (const event of ["plotly_relayouting", "plotly_relayout"]) {
        view.plot.on(event, (change) => follow(view, change["scene.camera"]));
      }
    });
  }
}

const range = (n) => Array.from({ length: n }, (_, i) => i);
function members(cloud, wanted) {
  const K = cloud.shapes.groups[1];
  return wanted.flatMap((group) => Array.from(cloud.groups.subarray(group * K, (group + 1) * K)));
}

function addReconstruction() {
  const parent = byId("views");
  const visible = (cloud) => {
    const hidden = new Set(cloud.masked);
    return range(cloud.shapes.groups[0]).filter((group) => !hidden.has(group));
  };
  const faint = (cloud) => markers(cloud.points, members(cloud, visible(cloud)),
    { marker: { color: theme().soft, size: 1.6, opacity: 0.45 } });
  const colored = (cloud, points, rows) => {
    const K = cloud.shapes.groups[1];
    const value = (i) => cloud.chamfer[Math.floor(i / K)];
    return markers(points, rows, {
      marker: { color: rows.map((_, i) => value(i)), colorscale: colorscale(),
        cmin: Math.min(...cloud.chamfer), cmax: Math.max(...cloud.chamfer), size: 3 },
      text: rows.map((_, i) => `group ${cloud.masked[Math.floor(i / K)]}<br>Chamfer ${short(value(i))}`),
    });
  };
  addView(parent, "input", (cloud) => ({
    title: `input, ${cloud.shapes.points[0]} points`,
    traces: [markers(cloud.points, range(cloud.shapes.points[0]), { marker: { color: theme().ink, size: 2 } })],
  }));
  addView(parent, "visible groups", (cloud) => ({
    title: `visible, ${visible(cloud).length} groups`,
    traces: [markers(cloud.points, members(cloud, visible(cloud)), { marker: { color: COLORS[5] } })],
  }));
  addView(parent, "masked groups", (cloud) => ({
    title: `masked, ${cloud.masked.length} groups`,
    traces: [markers(cloud.points, members(cloud, Array.from(cloud.masked)), { marker: { color: COLORS[4] } })],
  }));
  addView(parent, "rebuilt points", (cloud) => ({
    traces: [faint(cloud), colored(cloud, cloud.rebuilt, range(cloud.rebuilt.length / 3))],
  }));
  addView(parent, "true points", (cloud) => ({
    traces: [faint(cloud), colored(cloud, cloud.points, members(cloud, Array.from(cloud.masked)))],
  }));
}

function weightsOf(cloud, token) {
  const [, H, Q, G] = cloud.shapes.attention;
  const heads = state.head === 0 ? range(H) : [state.head - 1];
  const weights = new Float64Array(G);
  for (const head of heads) {
    const at = (state.block * H + head) * Q + token;
    for (let g = 0; g < G; g++) weights[g] += (cloud.attention[at * G + g] * cloud.peak[at]) / heads.length;
  }
  return weights;
}

function addAttention() {
  pageData.tokens.forEach((name, token) => addView(byId("queries"), name, (cloud) => {
    const weights = weightsOf(cloud, token), K = cloud.shapes.groups[1], N = cloud.shapes.points[0];
    const value = new Float64Array(N).fill(-1), group = new Int32Array(N);
    cloud.groups.forEach((row, i) => {
      const g = Math.floor(i / K);
      if (weights[g] > value[row]) { value[row] = weights[g]; group[row] = g; }
    });
    const peak = Math.max(...weights), rows = range(N).filter((row) => value[row] >= 0);
    return {
      title: `${name} token, highest weight ${short(peak)} (uniform ${short(1 / weights.length)})`,
      traces: [markers(cloud.points, rows, {
        marker: { color: rows.map((row) => value[row]), cmin: 0, cmax: peak, size: 3,
          colorscale: colorscale() },
        text: rows.map((row) => `group ${group[row]}<br>weight ${short(value[row])}`),
      })],
    };
  }));
  const [blocks, H] = pageData.clouds[0].attention.shape;
  byId("block").max = blocks;
  byId("block").value = blocks;
  state.block = blocks - 1;
  byId("block").addEventListener("input", (event) => { state.block = event.target.value - 1; update(); });
  byId("head").append(make("option", "mean of all"), ...range(H).map((h) => make("option", `${h + 1} of ${H}`)));
  byId("head").addEventListener("change", (event) => { state.head = event.target.selectedIndex; update(); });
}

function update() {
  const cloud = cloudOf(state.cloud);
  byId("cloud").selectedIndex = state.cloud;
  byId("caption").textContent = [cloud.caption && `Caption: ${cloud.caption}`, cloud.label && `class: ${cloud.label}`,
    `${cloud.size} points in the file`].filter(Boolean).join("; ");
  if (cloud.chamfer) {
    byId("chamfer-low").textContent = short(Math.min(...cloud.chamfer));
    byId("chamfer-high").textContent = short(Math.max(...cloud.chamfer));
    const mean = cloud.chamfer.reduce((sum, x) => sum + x, 0) / cloud.chamfer.length;
    byId("chamfer-mean").textContent = `Mean of this cloud: ${short(mean)}.`;
  }
  if (cloud.attention) byId("block-value").textContent = `${state.block + 1} of ${cloud.shapes.attention[0]}`;
  if (byId("nearest") && cloud.nearest) {
    byId("nearest").replaceChildren(...cloud.nearest.map(([text, cosine]) =>
      make("li", `${text} (cosine ${cosine.toFixed(2)})`)));
  }
  draw();
}

byId("cloud").append(...pageData.clouds.map((cloud) => make("option", cloud.name)));
byId("cloud").addEventListener("change", (event) => { state.cloud = event.target.selectedIndex; update(); });
for (const [name, step] of [["previous", -1], ["next", 1]]) {
  byId(name).addEventListener("click", () => {
    state.cloud = (state.cloud + step + pageData.clouds.length) % pageData.clouds.length;
    update();
  });
}
for (const button of document.querySelectorAll("[data-turn]")) {
  button.addEventListener("click", () => moveCamera(button.dataset.turn));
}
if (byId("views")) addReconstruction();
if (byId("queries")) addAttention();
update();
onThemeChange(draw);
document.documentElement.dataset.ready = "yes";
