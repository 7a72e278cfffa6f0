/* Brings the page to life, part by part; if anything here fails, the static page stays as it is. */
root.classList.add("js");

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function openForPrint() {          // what was found is printed whole
  const closed = () => all("details.finding:not([open]), details.symptoms:not([open])");
  let opened = [];
  addEventListener("beforeprint", () => { opened = closed(); for (const each of opened) each.open = true; });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
}

(async () => {
  followTheme();
  openForPrint();
  liveButtons();
  for (const table of all("table.sortable")) sortable(table);
  for (const input of all("[data-filter]")) filtering(input);
  followSections();
  const data = await unpack(document.getElementById("nndoctor-data").textContent.trim());
  drawCharts(data.charts);
  zoomButtons();
  const heat = one("[data-heat]");
  if (heat && data.maps.length) drawHeat(heat, data);
  layerDrawer(data);
  for (const box of all("[data-icicle]")) liveIcicle(box);
  for (const box of all("[data-relief]")) liveRelief(box, data.reliefs[box.dataset.relief], data.palette);
  root.dataset.charts = "drawn";
  performance.mark("nndoctor-drawn");
})().catch((error) => { console.warn("the charts stay static:", error); root.dataset.charts = "static"; });
