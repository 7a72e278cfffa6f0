/* The loss surface as a landscape: drag to turn it, wheel or + and - to come nearer, arrows by keyboard, 0 to go back. */
const START = { turn: 0.6, tilt: 0.6, near: 1 };   // tilt is the elevation of the eye
const TALL = 0.5;                  // height of the landscape, as a share of its width

function liveRelief(box, relief, palette) {
  const { xs, ys, heights, way, unit } = relief;
  const rgb = palette.match(/../g).map((pair) => parseInt(pair, 16));
  const canvas = element("canvas", { tabindex: "0", role: "img", "aria-label": box.dataset.name + ": drag or use the arrow keys to turn it" });
  const readout = one(".readout", box);
  const hint = "Drag to turn, wheel to come nearer; arrows, + and - by keyboard, 0 goes back.";
  const known = heights.flat().filter((value) => value != null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const up = (value) => (value == null ? 1 : (value - low) / (high - low || 1));
  const across = (value, axis) => 2 * (value - axis[0]) / (axis.at(-1) - axis[0] || 1) - 1;
  let view = { ...START };
  let points = [];                 // of the grid on the canvas, row by row

  function project(x, y, z) {      // x and y from -1 to 1, z from 0 to 1 -> place on the canvas, and how near it is
    const [sin, cos] = [Math.sin(view.turn), Math.cos(view.turn)];
    const [right, back] = [x * cos - y * sin, x * sin + y * cos];
    const rise = (z - 0.5) * 2 * TALL;
    const [sinks, lifts] = [Math.sin(view.tilt), Math.cos(view.tilt)];
    const [raised, depth] = [rise * lifts + back * sinks, back * lifts - rise * sinks];
    const size = view.near * Math.min(canvas.width / 3.1, canvas.height / 3) / (1 + 0.15 * depth);
    return [canvas.width / 2 + right * size, canvas.height / 2 - raised * size];
  }

  function heightAt(x, y) {        // between grid points
    const place = (value, axis) => Math.min(Math.max((value - axis[0]) / (axis.at(-1) - axis[0]) * (axis.length - 1), 0), axis.length - 1.001);
    const [column, row] = [place(x, xs), place(y, ys)];
    const [i, j] = [Math.floor(column), Math.floor(row)];
    const [u, v] = [column - i, row - j];
    const corner = (r, c) => up(heights[r][c]);
    return (1 - v) * ((1 - u) * corner(j, i) + u * corner(j, i + 1)) + v * ((1 - u) * corner(j + 1, i) + u * corner(j + 1, i + 1));
  }

  function line(ctx, places, style, width) {
    ctx.beginPath();
    for (const [n, [x, y]] of places.entries()) { if (n) ctx.lineTo(x, y); else ctx.moveTo(x, y); }
    ctx.strokeStyle = style;
    ctx.lineWidth = width * devicePixelRatio;
    ctx.stroke();
  }

  function tile(ctx, row, column) {
    const corners = [[row, column], [row, column + 1], [row + 1, column + 1], [row + 1, column]];
    const values = corners.map(([r, c]) => up(heights[r][c]));
    const level = Math.min(255, Math.floor(values.reduce((a, b) => a + b) / 4 * 255.99));
    const slope = (values[1] + values[2] - values[0] - values[3]) * xs.length / 4 - (values[2] + values[3] - values[0] - values[1]) * ys.length / 8;
    const light = 0.86 + 0.2 * slope / (1 + Math.abs(slope));
    ctx.fillStyle = `rgb(${[0, 1, 2].map((part) => Math.min(255, Math.round(rgb[3 * level + part] * light))).join(" ")})`;
    ctx.beginPath();
    for (const [r, c] of corners) ctx.lineTo(...points[r][c]);
    ctx.closePath();
    ctx.fill();
    ctx.strokeStyle = ctx.fillStyle;           // closes the seams between tiles
    ctx.lineWidth = devicePixelRatio * 0.7;
    ctx.stroke();
  }

  function floor(ctx) {
    const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]].map(([x, y]) => project(x, y, 0));
    line(ctx, corners, colour("line"), 1);
    ctx.fillStyle = colour("soft");
    ctx.font = `${11 * devicePixelRatio}px ${getComputedStyle(document.body).fontFamily}`;
    ctx.textAlign = "center";
    for (const [text, x, y] of [["first direction", 0, Math.cos(view.turn) > 0 ? -1.25 : 1.25], ["second direction", Math.sin(view.turn) > 0 ? -1.25 : 1.25, 0]]) ctx.fillText(text, ...project(x, y, 0));
  }

  function draw() {
    canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
    canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
    const ctx = canvas.getContext("2d");
    points = ys.map((y, row) => xs.map((x, column) => project(across(x, xs), across(y, ys), up(heights[row][column]))));
    floor(ctx);
    const rows = [...Array(ys.length - 1).keys()];         // what is behind is painted first
    const columns = [...Array(xs.length - 1).keys()];
    if (Math.cos(view.turn) > 0) rows.reverse();
    if (Math.sin(view.turn) > 0) columns.reverse();
    for (const row of rows) for (const column of columns) tile(ctx, row, column);
    const above = (x, y) => project(across(x, xs), across(y, ys), heightAt(x, y) + 0.012);
    if (way) {
      const places = way.xs.map((x, n) => above(x, way.ys[n]));
      line(ctx, places, "#fff", 3);
      line(ctx, places, "#d03030", 1.6);
    }
    const inside = xs[0] <= 0 && xs.at(-1) >= 0 && ys[0] <= 0 && ys.at(-1) >= 0;
    if (inside) {
      ctx.beginPath();
      ctx.arc(...above(0, 0), 4.5 * devicePixelRatio, 0, 2 * Math.PI);
      ctx.fillStyle = "#d03030";
      ctx.fill();
    }
  }

  function read(event) {           // the grid point under the pointer
    const frame = canvas.getBoundingClientRect();
    const at = [(event.clientX - frame.left) * devicePixelRatio, (event.clientY - frame.top) * devicePixelRatio];
    let [best, found] = [(14 * devicePixelRatio) ** 2, null];
    for (const [row, places] of points.entries()) for (const [column, [x, y]] of places.entries()) {
      const away = (x - at[0]) ** 2 + (y - at[1]) ** 2;
      if (away < best) [best, found] = [away, [row, column]];
    }
    if (!found) { readout.textContent = hint; return; }
    const [row, column] = found;
    const value = heights[row][column];
    readout.textContent = `${unit} ${value == null ? "not finite" : number(10 ** value)} at (${number(xs[column])}, ${number(ys[row])})`;
  }

  const turn = (by, lift) => { view.turn += by; view.tilt = Math.min(Math.max(view.tilt + lift, 0.08), 1.5); draw(); };
  const approach = (factor) => { view.near = Math.min(Math.max(view.near * factor, 0.4), 6); draw(); };
  let held = null;
  canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointercancel", () => { held = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) { read(event); return; }
    turn((event.clientX - held[0]) * 0.01, (event.clientY - held[1]) * 0.008);
    held = [event.clientX, event.clientY];
  });
  canvas.addEventListener("wheel", (event) => { if (document.activeElement === canvas || event.ctrlKey) { approach(Math.exp(-event.deltaY * 0.0015)); event.preventDefault(); } }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const done = {
      ArrowLeft: () => turn(-0.12, 0), ArrowRight: () => turn(0.12, 0), ArrowUp: () => turn(0, 0.08), ArrowDown: () => turn(0, -0.08),
      "+": () => approach(1.15), "-": () => approach(1 / 1.15), 0: () => { view = { ...START }; draw(); },
    }[event.key];
    if (done) { done(); event.preventDefault(); }
  });

  one(".relief-live", box).append(canvas);
  one(".relief-live", box).hidden = false;
  one(".relief-static", box)?.classList.add("printed");
  readout.textContent = hint;
  redraw.push(draw);
  new ResizeObserver(draw).observe(canvas);
  draw();
}
