"use strict";
// The page of `recon-fast report`: curves, map of embeddings, confusion; reloads itself while a run goes on.
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const style = (i) => ({ color: colorOf(i), dash: DASHES[Math.floor(i / COLORS.length) % DASHES.length] });
const CONFIG = { displayModeBar: false, responsive: true };
const kept = { zoom: {}, log: false, smooth: 0, reload: true, layout: null };
try {
  Object.assign(kept, JSON.parse(sessionStorage.getItem("recon-fast " + location.pathname) || "{}"));
} catch { /* a browser without storage forgets the zoom */ }
function keep() {
  try { sessionStorage.setItem("recon-fast " + location.pathname, JSON.stringify(kept)); } catch { /* as above */ }
}

function axes(more) {
  const { ink, grid, line } = theme();
  const axis = { gridcolor: grid, linecolor: line, zerolinecolor: line, automargin: true };
  return {
    margin: { l: 48, r: 10, t: 8, b: 34 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: 12 }, showlegend: false, xaxis: { ...axis, ...more.xaxis },
    yaxis: { ...axis, ...more.yaxis }, ...more.layout,
  };
}

function smoothed(values, weight) {
  let mean = null;
  return values.map((value) => {
    if (value === null || !weight) return value;
    mean = mean === null ? value : weight * mean + (1 - weight) * value;
    return mean;
  });
}

const charts = [];
function addCurve(name, runs) {
  const { plot } = addPlot(byId("curves"), name, { "aria-label": `${name} against the step` });
  charts.push(() => {
    const traces = runs.map(([x, y], i) => ({
      x, y: smoothed(y, kept.smooth), name: plain(pageData.runs[i]), type: "scatter",
      mode: x.length > 30 ? "lines" : "lines+markers",
      line: { ...style(i), width: 2 }, hovertemplate: "step %{x}, %{y:.5g}",
    })).filter((trace) => trace.x.length);
    const zoom = kept.zoom[name] || {};
    const positive = runs.every(([, y]) => y.every((value) => value === null || value > 0));
    const layout = axes({
      xaxis: { title: { text: "step" }, ...(zoom.x && { range: zoom.x }) },
      yaxis: { type: kept.log && positive ? "log" : "linear", exponentformat: "power",
        ...(zoom.y && zoom.log === kept.log && { range: zoom.y }) },
      layout: { hovermode: "closest" },
    });
    return Plotly.react(plot, traces, layout, CONFIG);
  });
  charts[charts.length - 1]().then(() => plot.on("plotly_relayout", () => {
    const { xaxis, yaxis } = plot._fullLayout;
    if (xaxis.autorange && yaxis.autorange) delete kept.zoom[name];
    else kept.zoom[name] = { x: xaxis.range.slice(), y: yaxis.range.slice(), log: kept.log };
    keep();
  }));
}

function addCurves() {
  pageData.runs.forEach((name, i) => {
    const { color, dash } = style(i);
    const swatch = make("span", undefined, { style: `display:inline-block;width:1.6rem;margin:0 .35rem 0 .8rem;
      border-top:3px ${dash === "solid" ? "solid" : dash.includes("dash") ? "dashed" : "dotted"} ${color};
      vertical-align:middle` });
    byId("legend").append(swatch, name);
  });
  for (const [name, runs] of Object.entries(pageData.curves)) addCurve(name, runs);
  const redraw = () => { keep(); charts.forEach((draw) => draw()); };
  byId("log").checked = kept.log;
  byId("smooth").value = kept.smooth;
  byId("log").addEventListener("change", (event) => { kept.log = event.target.checked; redraw(); });
  byId("smooth").addEventListener("input", (event) => { kept.smooth = +event.target.value; redraw(); });
  onThemeChange(redraw);
}

function addMap(map) {
  const SYMBOLS = ["circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon"];
  const places = Object.fromEntries(Object.entries(map.places).map(([name, xy]) => [name, unpack(xy)]));
  const points = unpack(map.thumbnails), count = map.thumbnails.shape[1];
  const plot = byId("map"), hover = byId("hover");
  byId("map-note").textContent = `${map.names.length} shapes by ${map.checkpoint}; ${map.note}. Distances between far `
    + "groups of t-SNE and UMAP mean nothing.";
  byId("layout").append(...Object.keys(places).map((name) => make("option", name)));
  if (places[kept.layout]) byId("layout").value = kept.layout;
  byId("class").append(make("option", "all"), ...map.classes.filter(Boolean).map((name) => make("option", name)));
  byId("shape").max = map.names.length - 1;
  const text = (i) => [map.names[i], map.classes[map.labels[i]], map.captions[i]].filter(Boolean).join("; ");

  function draw() {
    const xy = places[byId("layout").value];
    const wanted = byId("class").selectedIndex ? byId("class").value : null;
    const chosen = +byId("shape").value, mark = theme().ink;
    const rows = map.names.map((_, i) => i);
    const trace = {
      type: "scatter", mode: "markers", x: rows.map((i) => xy[2 * i]), y: rows.map((i) => xy[2 * i + 1]),
      hoverinfo: "none", marker: {
        size: rows.map((i) => (i === chosen ? 15 : 8)),
        color: rows.map((i) => colorOf(map.labels[i])),
        symbol: rows.map((i) => SYMBOLS[Math.floor(map.labels[i] / COLORS.length) % SYMBOLS.length]),
        opacity: rows.map((i) => (wanted === null || map.classes[map.labels[i]] === wanted || i === chosen ? 0.95 : 0.1)),
        line: { width: rows.map((i) => (i === chosen ? 2 : 0)), color: mark },
      },
    };
    return Plotly.react(plot, [trace], axes({
      xaxis: { showticklabels: false, zeroline: false }, yaxis: { showticklabels: false, zeroline: false },
      layout: { hovermode: "closest", margin: { l: 8, r: 8, t: 8, b: 8 }, uirevision: byId("layout").value },
    }), CONFIG);
  }

  function showAt(i, x, y) {
    hover.style.display = "block";
    hover.style.left = `${Math.min(x + 14, innerWidth - 205)}px`;
    hover.style.top = `${Math.max(Math.min(y + 14, innerHeight - 270), 0)}px`;
    hover.querySelector("figcaption").textContent = text(i);
    thumbnail(hover.querySelector("canvas"), points, i * count, count);
  }

  draw().then(() => {
    plot.on("plotly_hover", ({ points: [point], event }) => showAt(point.pointNumber, event.clientX, event.clientY));
    plot.on("plotly_unhover", () => { hover.style.display = "none"; });
  });
  byId("layout").addEventListener("change", (event) => { kept.layout = event.target.value; keep(); draw(); });
  byId("class").addEventListener("change", draw);
  byId("shape").addEventListener("input", (event) => {
    const place = event.target.getBoundingClientRect();
    byId("shape-name").textContent = text(+event.target.value);
    draw();
    showAt(+event.target.value, place.right, place.bottom);
  });
  byId("shape").addEventListener("blur", () => { hover.style.display = "none"; });
  onThemeChange(draw);
}

function addConfusion({ run, classes, counts }) {
  const { plot } = addPlot(byId("confusion"), run, { "aria-label": `confusion matrix of ${run}`,
    style: `--tall:${Math.min(200 + 22 * classes.length, 900)}px` });
  const shares = counts.map((row) => {
    const sum = row.reduce((a, b) => a + b, 0) || 1;
    return row.map((n) => n / sum);
  });
  const names = classes.map((name, i) => plain(classes.indexOf(name) === i ? name : `${name} (${i})`));
  const draw = () => Plotly.react(plot, [{
    type: "heatmap", x: names, y: names, z: shares, customdata: counts, zmin: 0, zmax: 1, colorscale: colorscale(),
    xgap: 1, ygap: 1, colorbar: { title: { text: "share" }, thickness: 12 },
    hovertemplate: "%{y} taken for %{x}: %{customdata}<extra></extra>",
  }], axes({ xaxis: { title: { text: "predicted" }, type: "category" },
    yaxis: { title: { text: "class" }, type: "category", autorange: "reversed" } }), CONFIG);
  draw();
  onThemeChange(draw);
}

function followRun(seconds) {
  const box = make("input", undefined, { type: "checkbox" });
  const label = make("label", undefined);
  label.append(box, ` reload every ${seconds} s`);
  byId("reload").append(label);
  box.checked = kept.reload;
  box.addEventListener("change", () => { kept.reload = box.checked; keep(); });
  let busy = false;
  addEventListener("pointerdown", () => { busy = true; });
  addEventListener("pointerup", () => { busy = false; });
  setInterval(() => { if (kept.reload && !busy) location.reload(); }, 1000 * seconds);
}

if (byId("curves")) addCurves();
if (pageData.map) addMap(pageData.map);
pageData.confusion.forEach(addConfusion);
if (pageData.reload) followRun(pageData.reload);
document.documentElement.dataset.ready = "yes";
