/* Where the time of a step goes: click a block to make it as wide as the step, click above it to go back. */
function liveIcicle(box) {
  const drawing = one(".icicle", box);
  const readout = one(".readout", box);
  const reset = one("[data-icicle-reset]", box);
  const hint = readout.textContent;
  const blocks = all(".block", drawing).map((group) => {
    const [left, width, row] = group.dataset.block.split(" ").map(Number);
    return { group, left, width, row, told: one("title", group).textContent, parts: [one("rect", group), one("svg", group)] };
  });
  let focus = blocks[0];
  let at = blocks[0];

  const place = () => {
    const [low, size] = [focus.left, focus.width];
    for (const block of blocks) {
      const above = block.row <= focus.row && block.left <= low + 1e-9 && block.left + block.width >= low + size - 1e-9;
      const left = above ? 0 : (block.left - low) / size;
      const width = above ? 1 : block.width / size;
      const seen = left + width > 1e-6 && left < 1 - 1e-6 && (above || block.row > focus.row || focus.row === 0);
      block.group.classList.toggle("away", !seen);
      const room = Math.floor((Math.min(width, 1) * drawing.clientWidth - 10) / 7);
      const { name } = block.group.dataset;
      one("text", block.group).textContent = room >= name.length ? name : room >= 3 ? name.slice(0, room - 1) + "…" : "";
      for (const part of block.parts) {
        part.setAttribute("x", 100 * Math.max(left, 0) + "%");
        part.setAttribute("width", 100 * Math.max(Math.min(left + width, 1) - Math.max(left, 0), 0) + "%");
      }
    }
    reset.disabled = focus === blocks[0];
  };
  const zoom = (block) => { focus = block; place(); };
  const point = (block) => {
    at.group.classList.remove("at");
    at = block ?? blocks[0];
    at.group.classList.toggle("at", Boolean(block));
    readout.textContent = block ? block.told : hint;
  };

  for (const block of blocks) {
    one("title", block.group).remove();       // the line above the drawing tells it, at once and to all
    block.group.addEventListener("pointerenter", () => point(block));
    block.group.addEventListener("click", () => { point(block); zoom(block === focus && block.row ? parentOf(block) : block); });
  }
  const parentOf = (block) => blocks.findLast((other) => other.row === block.row - 1 && other.left <= block.left + 1e-9 && other.left + other.width >= block.left + block.width - 1e-9) ?? blocks[0];
  const childOf = (block) => blocks.find((other) => parentOf(other) === block && other !== block);
  const beside = (block, by) => {
    const level = blocks.filter((other) => other.row === block.row && !other.group.classList.contains("away")).sort((a, b) => a.left - b.left);
    return level[level.indexOf(block) + by];
  };
  drawing.addEventListener("pointerleave", () => point(null));
  drawing.setAttribute("tabindex", "0");
  drawing.addEventListener("keydown", (event) => {
    const to = { ArrowUp: () => parentOf(at), ArrowDown: () => childOf(at), ArrowLeft: () => beside(at, -1), ArrowRight: () => beside(at, 1) }[event.key];
    if (to) { const next = to(); if (next) point(next); event.preventDefault(); }
    if (event.key === "Enter") { zoom(at); event.preventDefault(); }
    if (event.key === "Escape" || event.key === "0") { zoom(blocks[0]); event.preventDefault(); }
  });
  reset.addEventListener("click", () => zoom(blocks[0]));
  new ResizeObserver(place).observe(drawing);
  place();
}
