"use strict";
/* Adds zoom, hover and synchronised cursors to a page that is complete without it. Names reach the page by textContent
   only; if anything here fails, the static charts stay. */
(async () => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  root.classList.add("js");

  /* -- theme ---------------------------------------------------------------------------------------------------- */
  const redraw = [];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const remembered = (() => { try { return localStorage.getItem("nndoctor-theme"); } catch { return null; } })();
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const themeButton = document.getElementById("theme");
  const themed = () => { themeButton.textContent = isDark() ? "Light" : "Dark"; for (const draw of redraw) draw(); };
  if (remembered === "dark" || remembered === "light") root.dataset.theme = remembered;
  themeButton.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("nndoctor-theme", root.dataset.theme); } catch { /* private window: not remembered */ }
    themed();
  });
  dark.addEventListener("change", themed);
  themed();
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

  /* -- buttons -------------------------------------------------------------------------------------------------- */
  const copy = async (text, button) => {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1500);
  };
  for (const button of all("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy, button));
  const diagnosis = document.getElementById("nndoctor-diagnosis").textContent;
  for (const button of all("[data-json]")) {
    button.addEventListener("click", () => {
      const text = JSON.stringify(JSON.parse(diagnosis), null, 1);
      if (button.dataset.json === "copy") { copy(text, button); return; }
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      link.download = "diagnosis.json";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  /* -- tables: sort by a column, filter by name ----------------------------------------------------------------- */
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    all("th[data-sort]", table.tHead).forEach((head) => {
      const index = head.cellIndex;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      const key = (row) => {
        const cell = row.cells[index];
        const text = cell.dataset.value ?? cell.textContent;
        return head.dataset.sort === "number" ? (text.trim() === "" ? NaN : Number(text)) : text.trim();
      };
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && head.dataset.sort === "text");
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [key(row), row]);
        rows.sort(([a], [b]) => {
          if (typeof a === "string") return up ? a.localeCompare(b) : b.localeCompare(a);
          if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
          return up ? a - b : b - a;
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
  for (const input of all("[data-filter]")) {
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const row of document.getElementById(input.dataset.filter).tBodies[0].rows) {
        row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
      }
    });
  }

  /* -- the section in view -------------------------------------------------------------------------------------- */
  const links = new Map(all(".contents a").map((link) => [link.getAttribute("href").slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const section of all("main > section")) watcher.observe(section);

  /* -- data ----------------------------------------------------------------------------------------------------- */
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };
  const data = await unpack(document.getElementById("nndoctor-data").textContent.trim());

  const number = (value) => {
    if (value == null || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-3) {
      const [mantissa, exponent] = value.toExponential(2).split("e");
      return Number(mantissa) + "e" + Number(exponent);
    }
    return String(Number(value.toPrecision(4)));
  };
  const quantity = (value, unit) => {
    if (value == null || value === 0) return number(value);
    if (unit === "fraction") return Number((100 * value).toPrecision(3)) + "\u202f%";
    if (unit !== "s") return number(value);
    const [name, size] = [["s", 1], ["ms", 1e-3], ["µs", 1e-6]].find(([, s]) => Math.abs(value) >= s) ?? ["ns", 1e-9];
    return Number((value / size).toPrecision(3)) + "\u202f" + name;
  };
  const steps = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");

  /* -- charts --------------------------------------------------------------------------------------------------- */
  const whole = [...Array(16).keys()].flatMap((power) => [1, 2, 5].map((factor) => factor * 10 ** power));
  const plots = new Map();          // group -> the plots that zoom together
  const sync = uPlot.sync("run");

  const bandsPlugin = (item) => ({ hooks: { drawClear: [(u) => {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const [, first, last, tone] of item.bands) {
      const left = u.valToPos(first, "x", true);
      const right = Math.max(u.valToPos(last, "x", true), left + 2);
      ctx.fillStyle = colour(tone);
      ctx.globalAlpha = 0.06;
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
      ctx.globalAlpha = 0.7;
      ctx.fillRect(left, bbox.top, 1.2 * devicePixelRatio, bbox.height);
    }
    ctx.restore();
  }] } });

  const chartOptions = (item, host, group, readout) => {
    const series = [{}];
    const bands = [];
    item.lines.forEach((line, index) => {
      const stroke = () => colour("s" + (index % 6));
      const at = series.length;
      const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
      series.push({ ...edge }, { ...edge }, { label: line.label, stroke, width: 1.6, spanGaps: item.lines.length > 1, points: { show: line.mean.filter((v) => v != null).length <= 30, size: 5, stroke, fill: stroke } });
      bands.push({ series: [at + 1, at], fill: () => colour("s" + (index % 6)) + "2e" });
    });
    if (item.reference) series.push({ label: item.reference[0], stroke: () => colour("soft"), width: 1.2, dash: [5, 4], points: { show: false } });
    const font = "11px " + getComputedStyle(document.body).fontFamily;
    const axis = { stroke: () => colour("soft"), font, grid: { stroke: () => colour("grid"), width: 1 }, ticks: { show: false } };
    return {
      width: host.clientWidth, height: host.clientHeight, series, bands, legend: { show: false }, padding: [8, 16, 0, 0],
      scales: { x: { time: false, range: (u, low, high) => (low === high ? [low - 0.5, high + 0.5] : [low, high]) }, y: { distr: item.log ? 3 : 1, range: (u, low, high) => airy(low, high, item.log) } },
      axes: [
        { ...axis, size: 22, gap: 4, space: 80, incrs: whole, values: (u, values) => values.map((v) => (Number.isInteger(v) ? steps(v) : "")) },
        { ...axis, size: 58, gap: 6, space: 28, ...(item.log ? { splits: decades, filter: keep, grid: { ...axis.grid, filter: keep } } : {}), values: (u, values) => values.map((v) => (v == null ? "" : quantity(v, item.unit))) },
      ],
      cursor: { drag: { x: true, y: false }, points: { size: 6, show: true }, ...(group === "run" ? { sync: { key: sync.key, scales: ["x", null] } } : {}) },
      plugins: [bandsPlugin(item)],
      hooks: {
        setCursor: [(u) => { readout.textContent = told(u, item); }],
        setScale: [(u, key) => { if (key === "x") spread(u, group); }],
      },
    };
  };

  const airy = (low, high, log) => {
    if (low == null || high == null) return log ? [0.1, 1] : [0, 1];
    if (log) { const air = Math.max(high / low, 1.5) ** 0.05; return [low / air, high * air]; }
    const air = (high - low) * 0.06 || Math.abs(high) * 0.5 || 1;
    return [low - air, high + air];
  };

  const keep = (u, values) => values;
  const decades = (u, axis, low, high) => {      // round values on a log axis, at most about six
    const span = Math.log10(high / low);
    const within = span > 2 ? [1] : span > 1 ? [1, 3] : [1, 2, 3, 5, 7];
    const stride = Math.max(1, Math.ceil(span / 6));
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      if (power % stride) continue;
      for (const factor of within) {
        const value = Number((factor + "e" + power));
        if (value >= low && value <= high) found.push(value);
      }
    }
    return found;
  };

  const told = (u, item) => {
    const at = u.cursor.idx;
    if (at == null) return "";
    const parts = item.lines.map((line) => {
      const value = line.mean[at];
      if (value == null) return item.lines.length > 1 ? "" : "not measured";
      const spread = line.high[at] - line.low[at] > 1e-3 * Math.abs(value) ? ` (${quantity(line.low[at], item.unit)} to ${quantity(line.high[at], item.unit)})` : "";
      return (item.lines.length > 1 ? line.label + " " : "") + quantity(value, item.unit) + spread;
    });
    return `step ${steps(u.data[0][at])}: ` + parts.filter(Boolean).join(", ");
  };

  let spreading = false;
  const spread = (from, group) => {          // one zoom for all charts of a group
    if (spreading || !group) return;
    spreading = true;
    for (const { u } of plots.get(group) ?? []) {
      if (u !== from) u.setScale("x", { min: from.scales.x.min, max: from.scales.x.max });
    }
    spreading = false;
  };

  const keyboard = (host, u, item) => {
    host.tabIndex = 0;
    host.addEventListener("keydown", (event) => {
      const { min, max } = u.scales.x;
      const last = u.data[0].length - 1;
      const at = u.cursor.idx ?? Math.round(last / 2);
      const jump = event.shiftKey ? Math.max(1, Math.round(last / 20)) : 1;
      const zoom = (factor) => {
        const middle = u.data[0][at];
        const half = ((max - min) / 2) * factor;
        u.setScale("x", { min: Math.max(middle - half, item.range[0]), max: Math.min(middle + half, item.range[1]) });
      };
      const move = (to) => {
        const index = Math.min(Math.max(to, 0), last);
        u.setCursor({ left: u.valToPos(u.data[0][index], "x"), top: u.bbox.height / devicePixelRatio / 2 }, true, true);
      };
      const act = { ArrowLeft: () => move(at - jump), ArrowRight: () => move(at + jump), Home: () => move(0), End: () => move(last), "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
        0: () => u.setScale("x", { min: item.range[0], max: item.range[1] }) }[event.key];
      if (act) { act(); event.preventDefault(); }
    });
  };

  const pad = (columns, [first, last]) => {        // so that double-click goes back to the whole run, not to the first sample
    const [x] = columns;
    if (first < x[0]) columns.forEach((column, index) => column.unshift(index ? null : first));
    if (last > x[x.length - 1]) columns.forEach((column, index) => column.push(index ? null : last));
  };

  const drawChart = (figure, item) => {
    const still = figure.querySelector(".static");
    const host = figure.querySelector(".live");
    const group = figure.dataset.group;
    host.hidden = false;
    const columns = [item.steps];
    for (const line of item.lines) columns.push(line.low, line.high, line.mean);
    if (item.reference) columns.push(item.steps.map(() => item.reference[1]));
    pad(columns, item.range);
    const u = new uPlot(chartOptions(item, host, group, figure.querySelector(".readout")), columns, host);
    still.hidden = true;
    host.setAttribute("role", "img");
    host.setAttribute("aria-label", still.getAttribute("aria-label"));
    if (!plots.has(group)) plots.set(group, []);
    plots.get(group).push({ u });
    keyboard(host, u, item);
    redraw.push(() => u.redraw(false));
    new ResizeObserver(() => { if (host.clientWidth) u.setSize({ width: host.clientWidth, height: host.clientHeight }); }).observe(host);
  };

  for (const item of data.charts) {
    const figure = all("figure[data-chart]").find((candidate) => candidate.dataset.chart === item.id);
    if (!figure || !item.steps.length) continue;
    try { drawChart(figure, item); } catch (error) { figure.querySelector(".static").hidden = false; figure.querySelector(".live").hidden = true; console.warn(error); }
  }

  /* -- heat map ------------------------------------------------------------------------------------------------- */
  const heat = document.querySelector("[data-heat]");
  if (heat && data.maps.length) drawHeat(heat);

  function drawHeat(box) {
    const canvas = box.querySelector("canvas");
    const readout = box.querySelector(".readout");
    const rgb = Uint8Array.from(data.palette.match(/../g), (pair) => parseInt(pair, 16));
    let map = data.maps[0];
    let pointed = null;              // [row, column]
    for (const each of data.maps) each.cells = Uint8Array.from(atob(each.levels), (c) => c.charCodeAt(0));

    const value = (level) => {
      const share = level / 253;
      return map.log ? map.low * (map.high / map.low) ** share : map.low + share * (map.high - map.low);
    };
    const geometry = () => {
      const rows = map.rows.length;
      const width = box.querySelector(".heat-live").clientWidth;
      const left = Math.min(170, Math.round(width * 0.3));
      const row = Math.min(18, 720 / rows);
      return { rows, columns: map.edges.length - 1, left, row, width: width - left, height: row * rows };
    };
    const draw = () => {
      const g = geometry();
      const ratio = devicePixelRatio || 1;
      canvas.width = Math.round((g.left + g.width) * ratio);
      canvas.height = Math.round((g.height + 20) * ratio);
      canvas.style.height = g.height + 20 + "px";
      const picture = new ImageData(g.columns, g.rows);
      map.cells.forEach((level, index) => {
        if (level === 255) return;
        picture.data.set(rgb.subarray(3 * level, 3 * level + 3), 4 * index);
        picture.data[4 * index + 3] = 255;
      });
      const small = document.createElement("canvas");
      small.width = g.columns;
      small.height = g.rows;
      small.getContext("2d").putImageData(picture, 0, 0);
      const ctx = canvas.getContext("2d");
      ctx.scale(ratio, ratio);
      ctx.fillStyle = colour("faint");
      ctx.fillRect(g.left, 0, g.width, g.height);
      ctx.imageSmoothingEnabled = g.row < 1;
      ctx.drawImage(small, g.left, 0, g.width, g.height);
      labels(ctx, g);
      for (const [, first, , tone] of data.bands) {     // the step at which each root cause began
        const x = g.left + ((first - map.edges[0]) / (map.edges[g.columns] - map.edges[0])) * g.width;
        ctx.fillStyle = "#fff";
        ctx.fillRect(x - 1.5, 0, 3, g.height);
        ctx.fillStyle = colour(tone);
        ctx.fillRect(x - 0.5, 0, 1, g.height);
      }
      if (pointed) {
        ctx.strokeStyle = colour("ink");
        ctx.strokeRect(g.left - 1, pointed[0] * g.row, g.width + 1, Math.max(g.row, 2));
      }
    };
    const labels = (ctx, g) => {
      ctx.font = "11px " + getComputedStyle(canvas).fontFamily;
      ctx.textBaseline = "middle";
      ctx.textAlign = "right";
      const every = Math.max(1, Math.ceil(13 / g.row));
      for (let row = 0; row < g.rows && (row + 0.5) * g.row < g.height; row += every) {
        const now = pointed && pointed[0] === row;
        ctx.fillStyle = colour(now ? "ink" : "soft");
        ctx.fillText(fitted(ctx, data.layers[map.rows[row]], g.left - 10), g.left - 8, Math.max((row + 0.5) * g.row + 0.5, 6));
      }
      ctx.fillStyle = colour("soft");
      ctx.textAlign = "left";
      ctx.fillText(steps(map.edges[0]), g.left, g.height + 12);
      ctx.textAlign = "right";
      ctx.fillText(steps(map.edges[g.columns] - 1), g.left + g.width, g.height + 12);
    };
    const fitted = (ctx, text, width) => {     // the end of a layer's name tells more than its beginning
      if (ctx.measureText(text).width <= width) return text;
      let cut = 1;
      while (cut < text.length && ctx.measureText("…" + text.slice(cut)).width > width) cut += 1;
      return "…" + text.slice(cut);
    };
    const tell = () => {
      if (!pointed) { readout.textContent = ""; return; }
      const [row, column] = pointed;
      const level = map.cells[row * (map.edges.length - 1) + column];
      const [first, last] = [map.edges[column], map.edges[column + 1] - 1];
      const when = first >= last ? `step ${steps(first)}` : `steps ${steps(first)} to ${steps(last)}`;
      readout.textContent = `${data.layers[map.rows[row]]}, ${when}: ${map.name} ` + (level === 255 ? "not measured" : (level === 0 && map.log ? "at most " : "about ") + quantity(Number(value(level).toPrecision(2)), map.unit));
    };
    const point = (row, column) => {
      const g = geometry();
      pointed = [Math.min(Math.max(row, 0), g.rows - 1), Math.min(Math.max(column, 0), g.columns - 1)];
      draw();
      tell();
    };
    canvas.addEventListener("pointermove", (event) => {
      const g = geometry();
      point(Math.floor(event.offsetY / g.row), Math.floor(((event.offsetX - g.left) / g.width) * g.columns));
    });
    canvas.addEventListener("pointerleave", () => { pointed = null; draw(); tell(); });
    canvas.addEventListener("keydown", (event) => {
      const [row, column] = pointed ?? [0, 0];
      const by = event.shiftKey ? 10 : 1;
      const to = { ArrowUp: [row - by, column], ArrowDown: [row + by, column], ArrowLeft: [row, column - by], ArrowRight: [row, column + by] }[event.key];
      if (to) { point(...to); event.preventDefault(); }
    });
    for (const button of all("[data-signal]", box)) {
      button.addEventListener("click", () => {
        for (const other of all("[data-signal]", box)) other.setAttribute("aria-pressed", String(other === button));
        map = data.maps.find((each) => each.signal === button.dataset.signal);
        canvas.setAttribute("aria-label", map.summary);
        captions();
        pointed = null;
        draw();
        tell();
      });
    }
    const captions = () => { for (const figure of all("[data-picture]", box)) figure.hidden = figure.dataset.picture !== map.signal; };
    captions();
    box.querySelector(".heat-live").hidden = false;
    box.classList.add("drawn");
    redraw.push(draw);
    draw();
    let width = canvas.clientWidth;
    new ResizeObserver(() => { if (canvas.clientWidth !== width) { width = canvas.clientWidth; draw(); } }).observe(canvas);
  }

  root.dataset.charts = "drawn";
})().catch((error) => { console.warn("the charts stay static:", error); document.documentElement.dataset.charts = "static"; });
