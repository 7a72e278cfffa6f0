"use strict";
/* What all parts of the page share: elements, colours of the theme, numbers as people read them, buttons, tables.
   The page is complete without any of this; names reach it by textContent only. */
const root = document.documentElement;
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const one = (selector, from = document) => from.querySelector(selector);
const redraw = [];                 // called when the theme changes
const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

function element(kind, { text = "", kinds = "", ...attributes } = {}, ...children) {
  const made = document.createElement(kind);
  if (text) made.textContent = text;
  if (kinds) made.className = kinds;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/* -- numbers -------------------------------------------------------------------------------------------------------- */
function number(value) {
  if (value == null || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) {
    const [mantissa, exponent] = value.toExponential(2).split("e");
    return Number(mantissa) + "e" + Number(exponent);
  }
  return String(Number(value.toPrecision(4)));
}

function quantity(value, unit) {
  if (value == null || value === 0) return number(value);
  if (unit === "fraction") return Number((100 * value).toPrecision(3)) + "\u202f%";
  if (unit !== "s") return number(value);
  const [name, size] = [["s", 1], ["ms", 1e-3], ["µs", 1e-6]].find(([, s]) => Math.abs(value) >= s) ?? ["ns", 1e-9];
  return Number((value / size).toPrecision(3)) + "\u202f" + name;
}

const steps = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");

/* -- theme ---------------------------------------------------------------------------------------------------------- */
function followTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const remembered = (() => { try { return localStorage.getItem("nndoctor-theme"); } catch { return null; } })();
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const themed = () => { button.textContent = isDark() ? "Light" : "Dark"; for (const draw of redraw) draw(); };
  if (remembered === "dark" || remembered === "light") root.dataset.theme = remembered;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("nndoctor-theme", root.dataset.theme); } catch { /* private window: not remembered */ }
    themed();
  });
  dark.addEventListener("change", themed);
  themed();
}

/* -- buttons -------------------------------------------------------------------------------------------------------- */
async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1500);
}

function liveButtons() {
  for (const button of all("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy, button));
  for (const button of all("[data-json]")) {
    button.addEventListener("click", () => {
      const text = JSON.stringify(JSON.parse(document.getElementById("nndoctor-diagnosis").textContent), null, 1);
      if (button.dataset.json === "copy") { copy(text, button); return; }
      const link = element("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      link.download = "diagnosis.json";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
}

/* -- tables: sort by a column, filter by name ----------------------------------------------------------------------- */
function sortable(table) {
  const body = table.tBodies[0];
  for (const head of all("th[data-sort]", table.tHead)) {
    const index = head.cellIndex;
    const button = element("button", { type: "button" }, ...head.childNodes);
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
  }
}

function filtering(input) {
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of document.getElementById(input.dataset.filter).tBodies[0].rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
  });
}

/* -- the section in view -------------------------------------------------------------------------------------------- */
function followSections() {
  const links = new Map(all(".contents a").map((link) => [link.getAttribute("href").slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const section of all("main > section")) watcher.observe(section);
}
