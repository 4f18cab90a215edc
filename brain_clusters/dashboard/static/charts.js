// Charts: what <figure class="chart" data-series="{...}"> holds, drawn by uPlot and drawn anew when that changes.
//
// {"kind": "line" | "area" | "bars", "x": [...seconds], "series": [{"name", "tone", "values", "unit"}]}
const drawn = new WeakMap();
let plotting = null;

export async function drawCharts() {
  const figures = [...document.querySelectorAll("figure.chart[data-series]:has([data-keep])")];
  if (!figures.length) return;
  plotting ??= import("./vendor/uPlot.esm.js").then((found) => found.default);
  const Plot = await plotting;
  for (const figure of figures) draw(Plot, figure);
}

document.addEventListener("brain:theme", () => redraw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
addEventListener("resize", () => redraw());

function redraw() {
  for (const figure of document.querySelectorAll("figure.chart")) {
    const found = drawn.get(figure);
    if (found) { found.plot.destroy(); drawn.delete(figure); }
  }
  drawCharts();
}

function draw(Plot, figure) {
  const text = figure.dataset.series, before = drawn.get(figure);
  if (before?.text === text) return;
  const told = JSON.parse(text);
  const data = [told.x, ...told.series.map((one) => one.values)];
  if (before && before.count === told.series.length) {
    before.text = text;
    before.told = told;
    return before.plot.setData(data);
  }
  before?.plot.destroy();
  const place = figure.querySelector(".plot");
  place.replaceChildren();
  const state = { text, told, count: told.series.length };
  state.plot = new Plot(options(Plot, figure, place, state), data, place);
  drawn.set(figure, state);
}

function options(Plot, figure, place, state) {
  const style = getComputedStyle(document.documentElement);
  const colour = (tone) => style.getPropertyValue(`--${tone}`).trim();
  const { told } = state;
  const days = told.kind === "bars";
  // Of bars only the first series is one; the others are lines over it.
  const line = (one, number) => ({
    label: one.name, stroke: colour(one.tone), width: 1.6, spanGaps: false, points: { show: days && number > 0, size: 5, fill: colour(one.tone) },
    ...(number === 0 && told.kind !== "line" ? { fill: `color-mix(in srgb, ${colour(one.tone)} ${days ? 70 : 14}%, transparent)` } : {}),
    ...(number === 0 && days ? { paths: Plot.paths.bars({ size: [0.66, 40], radius: 0.15 }) } : {}),
  });
  const half = days && told.x.length > 1 ? (told.x[1] - told.x[0]) / 2 : 0;
  const axis = { stroke: colour("muted"), font: "11px " + style.getPropertyValue("--sans"), ticks: { show: false }, grid: { stroke: colour("line"), width: 1 } };
  return {
    width: Math.max(place.clientWidth, 120), height: place.clientHeight || 150, padding: [8, 4, 0, 0],
    legend: { show: false }, cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: true, range: (_plot, low, high) => [low - half, high + half] }, y: { range: (_plot, _low, high) => [0, Math.max(high * 1.08, told.least || 1)] } },
    axes: [{ ...axis, grid: { show: false }, size: 26, space: 64, values: (_plot, all) => all.map((at) => moment(at, days)) }, { ...axis, size: 46, space: 34, values: (_plot, all) => all.map(short) }],
    series: [{}, ...told.series.map(line)],
    hooks: { setCursor: [(plot) => legend(figure, state.told, plot.cursor.idx)] },
  };
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const calendar = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
const moment = (at, days) => (days ? calendar : clock).format(at * 1000);
const known = (values) => values.findLast((value) => value !== null);
const short = (value) => (Math.abs(value) >= 1e6 ? `${value / 1e6}M` : Math.abs(value) >= 1e4 ? `${value / 1e3}k` : String(+value.toFixed(4)));

// The figures under the pointer; without one the newest, which the server wrote.
function legend(figure, told, index) {
  const places = figure.querySelectorAll(".legend b");
  told.series.forEach((one, number) => {
    const value = index == null ? known(one.values) : one.values[index];
    if (places[number]) places[number].textContent = value == null ? "–" : `${+value.toFixed(2)}${one.unit ? " " + one.unit : ""}`;
  });
}
