// The heat map: a row for each service, a column for each class and direction. The worst first.

import { bits, byId, make, nameOf, percent, say, shown } from "./text.js";

/** What a cell can be, worst first. The sign and the words say what the colour says. */
const KINDS = {
  lost: { sign: "✖", words: "conforming packets lost" },
  dropped: { sign: "▼", words: "excess, some of it dropped" },
  excess: { sign: "▲", words: "excess, carried when there is room" },
  good: { sign: "✓", words: "all conforming, all delivered" },
  free: { sign: "○", words: "no contract" },
  idle: { sign: "·", words: "no traffic" },
  off: { sign: "–", words: "outside its period" },
};

const DIRECTIONS = { egress: "↑", ingress: "↓" };

let onChoice = () => {};
let rows = new Map();
let columnsNow = "";
let held = false;

/** `choose` is called with the name of a contract that was clicked. */
export function start(choose) {
  onChoice = choose;
  const table = byId("map");
  table.addEventListener("click", (event) => {
    const cell = event.target.closest("button");
    if (cell) onChoice(cell.dataset.name);
  });
  // Rows do not move away from under a pointer.
  table.addEventListener("pointerenter", () => (held = true));
  table.addEventListener("pointerleave", () => (held = false));
  const items = Object.entries(KINDS).map(([kind, { sign, words }]) =>
    make("li", {}, make("span", { class: `swatch ${kind}`, "aria-hidden": "true" }, sign), ` ${words}`));
  byId("legend").replaceChildren(...items);
}

/** Which kind of cell, and the share of the offered that conformed and was delivered. */
export function judge(row, rate) {
  const { offered_bps, conforming_bps, conforming_dropped_bps, nonconforming_bps, dropped_bps } = rate;
  const share = offered_bps > 0 ? Math.max(0, conforming_bps - conforming_dropped_bps) / offered_bps : 1;
  const kind =
    row.active === false ? "off"
    : rate.conforming_dropped_packets > 0 ? "lost"
    : offered_bps === 0 ? "idle"
    : dropped_bps > 0 ? "dropped"
    : row.rate_bps === undefined ? "free"
    : nonconforming_bps > 0 ? "excess"
    : "good";
  return { kind, share };
}

/** Draws contracts in their order, then what no contract covers; columns by `classes`, highest priority first. */
export function update(contracts, uncontracted, classes, window, chosen) {
  const keys = new Map();
  for (const one of [...contracts, ...uncontracted]) keys.set(`${one.class}\n${one.direction}`, [one.class, one.direction]);
  const columns = [...keys.values()].sort(([a, ad], [b, bd]) => classes.indexOf(a) - classes.indexOf(b) || ad.localeCompare(bd));
  drawHead(columns);
  const wanted = new Map();
  for (const contract of contracts) place(wanted, [contract.service, contract.segment], contract);
  for (const row of uncontracted) place(wanted, [null, null], row);
  drawRows(wanted, columns, window, chosen);
}

function place(wanted, who, row) {
  const id = JSON.stringify(who);
  if (!wanted.has(id)) wanted.set(id, { who, cells: new Map() });
  wanted.get(id).cells.set(`${row.class}\n${row.direction}`, row);
}

function drawHead(columns) {
  const names = columns.map(([cls, direction]) => [shown("class", cls), direction]);
  const key = JSON.stringify(names);
  if (key === columnsNow) return;
  columnsNow = key;
  rows = new Map();
  const heads = names.map(([cls, direction]) =>
    make("th", { scope: "col" }, make("b", {}, cls), make("br"), `${DIRECTIONS[direction] ?? ""} ${direction}`));
  byId("map").replaceChildren(
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Service"), ...heads)),
    make("tbody"));
}

function drawRows(wanted, columns, window, chosen) {
  const body = byId("map").tBodies[0];
  for (const [id, row] of rows) {
    if (!wanted.has(id)) {
      row.element.remove();
      rows.delete(id);
    }
  }
  const order = [];
  for (const [id, { who, cells }] of wanted) {
    if (!rows.has(id)) rows.set(id, newRow(columns));
    const row = rows.get(id);
    const [service, segment] = who;
    const name = service === null ? "(no contract)"
      : shown("service", service) + (segment ? ` > ${shown("segment", segment)}` : "");
    say(row.head, name);
    columns.forEach(([cls, direction], at) => drawCell(row.cells[at], cells.get(`${cls}\n${direction}`), name, window, chosen));
    order.push(row.element);
  }
  const isFixed = (held || body.contains(document.activeElement)) && body.children.length === order.length;
  const moved = order.some((element, at) => body.children[at] !== element);
  if (moved && !isFixed) body.replaceChildren(...order);
}

function newRow(columns) {
  const head = make("th", { scope: "row" });
  const cells = columns.map(() => ({ element: make("td"), button: null, was: "" }));
  return { head, cells, element: make("tr", {}, head, ...cells.map((cell) => cell.element)) };
}

function drawCell(cell, row, name, window, chosen) {
  if (!row) {
    if (cell.button) cell.element.replaceChildren();
    cell.button = null;
    cell.was = "";
    return;
  }
  const rate = row.rates?.[window] ?? {};
  const { kind, share } = judge(row, { offered_bps: 0, ...rate });
  const full = row.service === undefined ? "" : nameOf(row);
  const text = { idle: "idle", off: "not now" }[kind] ?? (full ? percent(share) : bits(rate.offered_bps));
  // Ten steps are as many as an eye tells apart; the number is exact.
  const step = Math.min(9, Math.floor((1 - share) * 10));
  const now = [kind, step, text, name, full, full === chosen, rate.offered_bps].join("\n");
  if (now === cell.was) return;
  cell.was = now;
  if (!cell.button) {
    cell.button = make(full ? "button" : "span", full ? { type: "button" } : {},
      make("em", { "aria-hidden": "true" }), make("i", { "aria-hidden": "true" }), make("b"), make("small"));
    cell.element.replaceChildren(cell.button);
  }
  const { button } = cell;
  const [label, sign, figure, offered] = button.children;
  say(label, `${shown("class", row.class)} ${DIRECTIONS[row.direction]}`);
  button.className = `cell ${kind} s${step}`;
  say(sign, KINDS[kind].sign);
  say(figure, text);
  say(offered, kind === "idle" || kind === "off" || !full ? "" : bits(rate.offered_bps));
  const words = `${name}, ${shown("class", row.class)} ${row.direction}: ${text}, ${KINDS[kind].words}; `
    + `offered ${bits(rate.offered_bps ?? 0)}${row.rate_bps ? ` of ${bits(row.rate_bps)} entitled` : ""}`;
  button.title = words;
  if (!full) return;
  button.dataset.name = full;
  button.setAttribute("aria-label", words);
  button.setAttribute("aria-pressed", String(full === chosen));
}
