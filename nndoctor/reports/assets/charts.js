/* Charts that zoom, read out and move their cursors together; uPlot draws them in the place of the static ones. */
const plots = new Map();           // group -> [{ u, item, figure }]: what zooms and points together
const pointing = new Set();        // called with the step under the cursor of the timeline, or null
const wholeNumbers = [...Array(16).keys()].flatMap((power) => [1, 2, 5].map((factor) => factor * 10 ** power));

/* -- axes ----------------------------------------------------------------------------------------------------------- */
function airy(low, high, log) {
  if (low == null || high == null) return log ? [0.1, 1] : [0, 1];
  if (log) { const air = Math.max(high / low, 1.5) ** 0.05; return [low / air, high * air]; }
  const air = (high - low) * 0.06 || Math.abs(high) * 0.5 || 1;
  return [low - air, high + air];
}

function decades(u, axis, low, high) {      // round values on a log axis, at most about six
  const span = Math.log10(high / low);
  const within = span > 2 ? [1] : span > 1 ? [1, 3] : [1, 2, 3, 5, 7];
  const stride = Math.max(1, Math.ceil(span / 6));
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    if (power % stride) continue;
    for (const factor of within) {
      const value = Number(factor + "e" + power);
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found;
}

/* -- bands of findings, numbered as the root causes are --------------------------------------------------------------- */
function drawBands(u, bands) {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  ctx.save();
  for (const [, first, last, tone, flag] of bands) {
    const start = u.valToPos(first, "x", true);
    const left = Math.max(start, bbox.left);
    const right = Math.min(Math.max(u.valToPos(last, "x", true), start + 2), bbox.left + bbox.width);
    if (right <= bbox.left || left >= bbox.left + bbox.width) continue;
    ctx.fillStyle = colour(tone);
    ctx.globalAlpha = 0.07;
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    if (start < bbox.left) continue;
    ctx.globalAlpha = 0.7;
    ctx.fillRect(left, bbox.top, 1.2 * ratio, bbox.height);
    ctx.globalAlpha = 1;
    if (flag) drawFlag(ctx, left, bbox.top - 15 * ratio, ratio, flag, tone);
  }
  ctx.restore();
}

function drawFlag(ctx, x, top, ratio, flag, tone) {
  ctx.fillStyle = colour(tone);
  ctx.beginPath();
  ctx.roundRect(x - 7 * ratio, top, 14 * ratio, 14 * ratio, 4 * ratio);
  ctx.fill();
  ctx.fillStyle = colour("card");
  ctx.font = `600 ${10 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText(flag, x, top + 7.5 * ratio);
}

/* -- one chart ------------------------------------------------------------------------------------------------------ */
function seriesOf(item) {
  const series = [{}];
  const bands = [];
  item.lines.forEach((line, index) => {
    const stroke = () => colour("s" + (index % 6));
    const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
    if (line.low) {
      bands.push({ series: [series.length + 1, series.length], fill: () => colour("s" + (index % 6)) + "2e" });
      series.push({ ...edge }, { ...edge });
    }
    const few = line.mean.filter((value) => value != null).length <= 30;
    series.push({ label: line.label, stroke, width: 1.6, spanGaps: item.lines.length > 1 || item.sparse, points: { show: few, size: 5, stroke, fill: stroke } });
  });
  if (item.reference) series.push({ label: item.reference[0], stroke: () => colour("soft"), width: 1.2, dash: [5, 4], points: { show: false } });
  return { series, bands };
}

function columnsOf(item) {
  const grounded = (values) => values.map((value) => (item.floor != null && value != null && value <= 0 ? item.floor : value));
  const columns = [[...item.steps]];
  for (const line of item.lines) {
    if (line.low) columns.push(grounded(line.low), grounded(line.high));
    columns.push(grounded(line.mean));
  }
  if (item.reference) columns.push(item.steps.map(() => item.reference[1]));
  pad(columns, item.range);
  return columns;
}

function pad(columns, [first, last]) {        // so that going back shows the whole run, not only from the first sample on
  const [x] = columns;
  if (first < x[0]) columns.forEach((column, index) => column.unshift(index ? null : first));
  if (last > x[x.length - 1]) columns.forEach((column, index) => column.push(index ? null : last));
}

function chartOptions(item, host, group, readout) {
  const font = "11px " + getComputedStyle(document.body).fontFamily;
  const axis = { stroke: () => colour("soft"), font, grid: { stroke: () => colour("grid"), width: 1 }, ticks: { show: false } };
  const logarithmic = item.log ? { splits: decades, filter: (u, values) => values, grid: { ...axis.grid, filter: (u, values) => values } } : {};
  return {
    width: host.clientWidth, height: host.clientHeight, ...seriesOf(item), legend: { show: false }, padding: [item.bands.some((band) => band[4]) ? 18 : 8, 16, 0, 0],
    scales: { x: { time: false, range: (u, low, high) => (low === high ? [low - 0.5, high + 0.5] : [low, high]) }, y: { distr: item.log ? 3 : 1, range: (u, low, high) => airy(low, high, item.log) } },
    axes: [
      { ...axis, size: 22, gap: 4, space: 80, incrs: wholeNumbers, values: (u, values) => values.map((v) => (Number.isInteger(v) ? steps(v) : "")) },
      { ...axis, size: 58, gap: 6, space: 28, ...logarithmic, values: (u, values) => values.map((v) => (v == null ? "" : quantity(v, item.unit))) },
    ],
    cursor: { drag: { x: true, y: false }, points: { size: 6, show: true }, ...(group ? { sync: { key: group, scales: ["x", null] } } : {}) },
    plugins: [{ hooks: { drawClear: [(u) => drawBands(u, item.bands)] } }],
    hooks: {
      setCursor: [(u) => {
        readout.textContent = told(u, item);
        if (group === "run") for (const point of pointing) point(u.cursor.idx == null ? null : u.data[0][u.cursor.idx]);
      }],
      setScale: [(u, key) => { if (key === "x") spread(u, group); }],
    },
  };
}

function told(u, item) {
  const at = u.cursor.idx;
  if (at == null) return "";
  const step = u.data[0][at];
  const index = at - (u.data[0][0] < item.steps[0] ? 1 : 0);
  const parts = item.lines.map((line) => {
    const value = line.mean[index];
    if (value == null) return item.lines.length > 1 ? "" : "not measured";
    const wide = line.low && line.high[index] - line.low[index] > 1e-3 * Math.abs(value);
    return (item.lines.length > 1 ? line.label + " " : "") + (item.about ?? "") + quantity(value, item.unit) + (wide ? ` (${quantity(line.low[index], item.unit)} to ${quantity(line.high[index], item.unit)})` : "");
  });
  return `step ${steps(step)}: ` + parts.filter(Boolean).join(", ");
}

function drawChart(figure, item) {
  const still = one(".static", figure);
  const host = one(".live", figure);
  const group = figure.dataset.group;
  host.hidden = false;
  host.classList.toggle("flagged", item.bands.some((band) => band[4]));
  if (group && !plots.has(group)) uPlot.sync(group);
  const u = new uPlot(chartOptions(item, host, group, one(".readout", figure)), columnsOf(item), host);
  host.setAttribute("role", "img");
  if (still) {
    still.hidden = true;
    host.setAttribute("aria-label", still.getAttribute("aria-label"));
  }
  if (!plots.has(group)) plots.set(group, []);
  plots.get(group).push({ u, item, figure });
  keyboard(host, u, item);
  redraw.push(() => { if (u.root.isConnected) u.redraw(false); });
  new ResizeObserver(() => { if (host.clientWidth) u.setSize({ width: host.clientWidth, height: host.clientHeight }); }).observe(host);
  return u;
}

function drawCharts(items) {
  const figures = new Map(all("figure[data-chart]").map((figure) => [figure.dataset.chart, figure]));
  for (const item of items) {
    const figure = figures.get(item.id);
    if (!figure || !item.steps.length) continue;
    try { drawChart(figure, item); } catch (error) { one(".static", figure).hidden = false; one(".live", figure).hidden = true; console.warn(error); }
  }
}

/* -- one zoom for all charts of a group ------------------------------------------------------------------------------- */
let spreading = false;
function spread(from, group) {
  if (group === "run") tellRange(from.scales.x.min, from.scales.x.max);
  if (spreading || !group) return;
  spreading = true;
  for (const { u } of plots.get(group) ?? []) {
    if (u !== from) u.setScale("x", { min: from.scales.x.min, max: from.scales.x.max });
  }
  spreading = false;
}

function zoomRun(first, last) {
  const [{ u, item } = {}] = plots.get("run") ?? [];
  if (!u) return;
  const [low, high] = first == null ? item.range : [first, last];
  u.setScale("x", { min: Math.max(low, item.range[0]), max: Math.min(high, item.range[1]) });
}

function tellRange(low, high) {
  const timeline = one("[data-timeline]");
  const [{ item } = {}] = plots.get("run") ?? [];
  if (!timeline || !item || low == null) return;
  const whole = low <= item.range[0] && high >= item.range[1];
  one("[data-range]", timeline).textContent = `steps ${steps(Math.max(Math.ceil(low), 1))} to ${steps(Math.floor(high))}` + (whole ? "" : ` of ${steps(item.range[1])}`);
  one('[data-zoom=""]', timeline).disabled = whole;
}

function zoomButtons() {
  for (const button of all("[data-zoom]")) {
    button.addEventListener("click", () => zoomRun(...button.dataset.zoom.split(" ").filter(Boolean).map(Number)));
  }
  for (const button of all("[data-look]")) {
    button.addEventListener("click", () => {
      const step = Number(button.dataset.look);
      document.getElementById("timeline").scrollIntoView();
      zoomRun(Math.max(step - 150, 1), step + 150);
      one("[data-timeline] .live")?.focus({ preventScroll: true });
    });
  }
}

function keyboard(host, u, item) {
  host.tabIndex = 0;
  host.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { min, max } = u.scales.x;
    const x = u.data[0];
    const inView = (index) => x[index] >= min && x[index] <= max;
    let [from, to] = [0, x.length - 1];
    while (from < to && !inView(from)) from += 1;
    while (to > from && !inView(to)) to -= 1;
    const at = u.cursor.idx ?? Math.round((from + to) / 2);
    const jump = event.shiftKey ? Math.max(1, Math.round((to - from) / 20)) : 1;
    const zoom = (factor) => {
      const half = Math.max(((max - min) / 2) * factor, 1);
      u.setScale("x", { min: Math.max(x[at] - half, item.range[0]), max: Math.min(x[at] + half, item.range[1]) });
    };
    const move = (index) => {
      const step = x[Math.min(Math.max(index, from), to)];
      u.setCursor({ left: u.valToPos(step, "x"), top: u.bbox.height / devicePixelRatio / 2 }, true, true);
    };
    const act = {
      ArrowLeft: () => move(at - jump), ArrowRight: () => move(at + jump), Home: () => move(from), End: () => move(to), "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
      0: () => u.setScale("x", { min: item.range[0], max: item.range[1] }), Escape: () => u.setCursor({ left: -10, top: -10 }),
    }[event.key];
    if (act) { act(); event.preventDefault(); }
  });
}
