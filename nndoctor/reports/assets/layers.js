/* The heat map on a canvas, and the drawer that tells all of one layer. */
function drawHeat(box, data) {
  const canvas = one("canvas", box);
  const readout = one(".readout", box);
  const rgb = Uint8Array.from(data.palette.match(/../g), (pair) => parseInt(pair, 16));
  let map = data.maps[0];
  let pointed = null;              // [row, column]
  let step = null;                 // under the cursor of the timeline
  for (const each of data.maps) {
    each.cells = Uint8Array.from(atob(each.levels), (c) => c.charCodeAt(0));
    each.columns = each.edges.length - 1;
  }

  const geometry = () => {
    const rows = map.rows.length;
    const width = one(".heat-live", box).clientWidth;
    const left = Math.min(170, Math.round(width * 0.3));
    const row = Math.min(rows < 10 ? 26 : 18, 720 / rows);
    return { rows, columns: map.columns, left, row, width: width - left, height: row * rows, top: 16 };
  };
  const place = (g, at) => g.left + Math.min(Math.max((at - map.edges[0]) / (map.edges[g.columns] - map.edges[0]), 0), 1) * g.width;

  const picture = () => {          // the cells as a small canvas of their own, made once for each signal
    if (map.picture) return map.picture;
    const { rows, columns } = geometry();
    const pixels = new ImageData(columns, rows);
    map.cells.forEach((level, index) => {
      if (level === 255) return;
      pixels.data.set(rgb.subarray(3 * level, 3 * level + 3), 4 * index);
      pixels.data[4 * index + 3] = 255;
    });
    map.picture = element("canvas");
    map.picture.width = columns;
    map.picture.height = rows;
    map.picture.getContext("2d").putImageData(pixels, 0, 0);
    return map.picture;
  };

  const draw = () => {
    const g = geometry();
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round((g.left + g.width) * ratio);
    canvas.height = Math.round((g.top + g.height + 20) * ratio);
    canvas.style.height = g.top + g.height + 20 + "px";
    const ctx = canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    ctx.fillStyle = colour("faint");
    ctx.fillRect(g.left, g.top, g.width, g.height);
    ctx.imageSmoothingEnabled = g.row < 1;
    ctx.drawImage(picture(), g.left, g.top, g.width, g.height);
    for (const [, first, , tone, flag] of data.bands) {     // the step at which each root cause began
      const x = place(g, first);
      ctx.fillStyle = "#fff";
      ctx.fillRect(x - 1.5, g.top, 3, g.height);
      ctx.fillStyle = colour(tone);
      ctx.fillRect(x - 0.5, g.top, 1, g.height);
      if (flag) drawFlag(ctx, Math.min(Math.max(x, g.left + 7), g.left + g.width - 7), 0, 1, flag, tone);
    }
    labels(ctx, g);
    marks(ctx, g);
  };
  const marks = (ctx, g) => {
    if (step != null) {
      ctx.fillStyle = "#fff";
      ctx.fillRect(place(g, step) - 0.5, g.top, 1, g.height);
    }
    if (pointed) {
      ctx.strokeStyle = colour("ink");
      ctx.lineWidth = 1.5;
      ctx.strokeRect(g.left - 0.75, g.top + pointed[0] * g.row, g.width + 0.5, Math.max(g.row, 2));
    }
  };
  const labels = (ctx, g) => {
    ctx.font = "11px " + getComputedStyle(canvas).fontFamily;
    ctx.textBaseline = "middle";
    ctx.textAlign = "right";
    const every = Math.max(1, Math.ceil(13 / g.row));
    for (let row = 0; row < g.rows; row += every) label(ctx, g, row, "soft");
    if (pointed) {
      ctx.fillStyle = colour("card");
      ctx.fillRect(0, g.top + (pointed[0] + 0.5) * g.row - 9, g.left - 2, 18);
      label(ctx, g, pointed[0], "ink");
    }
    ctx.fillStyle = colour("soft");
    ctx.textAlign = "left";
    ctx.fillText("step " + steps(map.edges[0]), g.left, g.top + g.height + 12);
    ctx.textAlign = "right";
    ctx.fillText(steps(map.edges[g.columns] - 1), g.left + g.width, g.top + g.height + 12);
  };
  const label = (ctx, g, row, ink) => {
    ctx.fillStyle = colour(ink);
    ctx.fillText(fitted(ctx, data.layers[map.rows[row]], g.left - 10), g.left - 8, Math.min(Math.max(g.top + (row + 0.5) * g.row + 0.5, g.top + 6), g.top + g.height));
  };

  const tell = () => {
    if (!pointed) { readout.textContent = ""; return; }
    const [row, column] = pointed;
    const level = map.cells[row * map.columns + column];
    const [first, last] = [map.edges[column], map.edges[column + 1] - 1];
    const when = first >= last ? `step ${steps(first)}` : `steps ${steps(first)} to ${steps(last)}`;
    const value = level === 255 ? "not measured" : (level === 0 && map.log ? "at most " : "about ") + quantity(Number(levelValue(map, level).toPrecision(2)), map.unit);
    readout.textContent = `${data.layers[map.rows[row]]}, ${when}: ${map.name} ${value}`;
  };
  const point = (row, column) => {
    pointed = [Math.min(Math.max(row, 0), map.rows.length - 1), Math.min(Math.max(column, 0), map.columns - 1)];
    draw();
    tell();
  };
  const under = (event) => {
    const g = geometry();
    return [Math.floor((event.offsetY - g.top) / g.row), Math.floor(((event.offsetX - g.left) / g.width) * g.columns)];
  };
  const open = () => showLayer(data, map.rows[pointed[0]], map.rows);

  canvas.addEventListener("pointermove", (event) => point(...under(event)));
  canvas.addEventListener("pointerleave", () => { pointed = null; draw(); tell(); });
  canvas.addEventListener("click", (event) => { point(...under(event)); open(); });
  canvas.addEventListener("keydown", (event) => {
    const [row, column] = pointed ?? [0, 0];
    const by = event.shiftKey ? 10 : 1;
    const to = { ArrowUp: [row - by, column], ArrowDown: [row + by, column], ArrowLeft: [row, column - by], ArrowRight: [row, column + by], Enter: [row, column] }[event.key];
    if (!to) return;
    point(...(pointed || event.key === "Enter" ? to : [row, column]));
    if (event.key === "Enter") open();
    event.preventDefault();
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
  one(".heat-live", box).hidden = false;
  box.classList.add("drawn");
  redraw.push(draw);
  pointing.add((at) => { if (at !== step) { step = at; draw(); } });
  draw();
  let width = canvas.clientWidth;
  new ResizeObserver(() => { if (canvas.clientWidth !== width) { width = canvas.clientWidth; draw(); } }).observe(canvas);
}

function levelValue(map, level) {
  const share = level / 253;
  return map.log ? map.low * (map.high / map.low) ** share : map.low + share * (map.high - map.low);
}

function fitted(ctx, text, width) {     // the end of a layer's name tells more than its beginning
  if (ctx.measureText(text).width <= width) return text;
  let cut = 1;
  while (cut < text.length && ctx.measureText("…" + text.slice(cut)).width > width) cut += 1;
  return "…" + text.slice(cut);
}

/* -- the drawer ----------------------------------------------------------------------------------------------------- */
function layerDrawer(data) {
  const table = document.getElementById("layer-table");
  if (!table || !data.layers.length) return;
  const order = () => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => Number(row.dataset.layer));
  for (const row of table.tBodies[0].rows) {
    const name = one("code", row);
    const button = element("button", { type: "button", kinds: "open-layer", "aria-haspopup": "dialog" });
    name.replaceWith(button);
    button.append(name);
    button.addEventListener("click", () => showLayer(data, Number(row.dataset.layer), order()));
  }
  const drawer = document.getElementById("layer-drawer");
  one('[data-drawer="close"]', drawer).addEventListener("click", () => drawer.close());
  drawer.addEventListener("click", (event) => { if (event.target === drawer) drawer.close(); });   // the backdrop
  drawer.addEventListener("close", () => emptyCurves(drawer));
  for (const [name, by] of [["back", -1], ["on", 1]]) {
    one(`[data-drawer="${name}"]`, drawer).addEventListener("click", () => {
      const { order: among, layer } = drawer.shown;
      showLayer(data, among[Math.min(Math.max(among.indexOf(layer) + by, 0), among.length - 1)], among);
    });
  }
}

function showLayer(data, layer, among) {
  const drawer = document.getElementById("layer-drawer");
  const row = one(`#layer-table tr[data-layer="${layer}"]`);
  if (!drawer || !row) return;
  drawer.shown = { layer, order: among };
  document.getElementById("drawer-name").textContent = data.layers[layer];
  const heads = [...row.closest("table").tHead.rows[0].cells].map((head) => head.textContent);
  const kind = one("th .aside", row)?.textContent ?? "";
  one('[data-drawer="about"]', drawer).textContent = [kind, `layer ${row.cells[1].textContent} of ${data.layers.length}`].filter(Boolean).join(", ");
  const values = [...row.cells].map((cell, index) => [heads[index], cell]).slice(3).filter(([, cell]) => !cell.classList.contains("curve-cell") && cell.textContent.trim() !== "–");
  one('[data-drawer="values"]', drawer).replaceChildren(...values.map(([head, cell]) => element("div", {}, element("dt", { text: head }), element("dd", { text: cell.textContent }))));
  one('[data-drawer="findings"]', drawer).replaceChildren(...layerFindings(data, layer));
  for (const [name, end] of [["back", among[0]], ["on", among[among.length - 1]]]) one(`[data-drawer="${name}"]`, drawer).disabled = layer === end;
  if (!drawer.open) drawer.showModal();
  drawer.scrollTop = 0;
  layerCurves(drawer, data, layer);
}

function layerFindings(data, layer) {
  const found = (data.layer_findings[layer] ?? []).map((index) => data.findings[index]);
  if (!found.length) return [element("p", { kinds: "aside", text: "No finding about this layer." })];
  return found.map((finding) => element("article", { kinds: `told ${finding.tone}` },
    element("p", {}, element("span", { kinds: `pill ${finding.tone}`, text: finding.tone }), " ", element("b", { text: finding.title }), " ", element("span", { kinds: "aside", text: finding.since })),
    element("p", { text: finding.message })));
}

function emptyCurves(drawer) {
  for (const { u } of plots.get("drawer") ?? []) u.destroy();
  plots.delete("drawer");
  one('[data-drawer="curves"]', drawer).replaceChildren();
}

function layerCurves(drawer, data, layer) {       // from the heat maps: one level of brightness is a few per cent
  emptyCurves(drawer);
  const home = one('[data-drawer="curves"]', drawer);
  for (const map of data.maps) {
    const row = map.rows.indexOf(layer);
    if (row < 0) continue;
    const levels = map.cells.subarray(row * map.columns, (row + 1) * map.columns);
    const mean = [...levels].map((level) => (level === 255 ? null : levelValue(map, level)));
    if (mean.every((value) => value == null)) continue;
    const known = mean.filter((value) => value != null);
    const log = map.log && Math.max(...known) > 50 * Math.min(...known);
    const item = { id: map.signal, unit: map.unit, range: [map.edges[0], map.edges[map.columns] - 1], log, steps: map.edges.slice(0, -1), lines: [{ label: map.name, mean }], bands: data.bands, reference: null, about: "about ", sparse: true };
    const figure = element("figure", { kinds: "chart", "data-group": "drawer" },
      element("figcaption", {}, element("b", { text: map.name }), log ? element("span", { kinds: "aside", text: "log scale" }) : "", element("output", { kinds: "readout" })),
      element("div", { kinds: "live", "aria-label": `${map.name} of ${data.layers[layer]}: ${quantity(known[0], map.unit)} at first, ${quantity(known[known.length - 1], map.unit)} at last.` }));
    home.append(figure);
    drawChart(figure, item);
  }
}
