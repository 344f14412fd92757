// Alarms, drops, ports, rings, workers, events: what is no map and no line.

import { SIGNS } from "./chart.js";
import { bits, byId, clock, count, fill, make, micros, octets, percent, say, shown, shownPlace, shownText } from "./text.js";

/** What the reasons mean; docs/OPERATING.md says what to do about them. */
const REASONS = {
  policed: "above its contract, and the contract says drop",
  ring_full: "its priority ring was full",
  red_first: "made room for conforming packets",
  codel: "CoDel: the ring was slow for too long",
  frames_low: "the worker was out of frames",
  device: "the port did not take it",
  stalled: "the worker was not running",
  no_socket: "came at a queue without a worker",
};

/** Replaces children only if what they say has changed: a screen reader would read them again. */
function renew(element, children) {
  const holder = make("div", {}, ...children);
  if (holder.textContent !== element.dataset.was) {
    element.dataset.was = holder.textContent;
    element.replaceChildren(...children);
  }
}

const boxes = new Map();

/**
 * Alarms of one kind together, so that a hundred of them leave the map in sight. A kind keeps its element, and with it the
 * focus, as long as it lasts.
 */
export function alarms(status, problems) {
  const kinds = new Map();
  for (const alarm of status.alarms) kinds.set(alarm.name, [...(kinds.get(alarm.name) ?? []), alarm]);
  const items = [...kinds].map(([name, list]) => kindOf(name, list));
  for (const problem of problems) items.push(kept(problem, () => make("p", { class: "alarm mild" }, `▲ ${problem}`)));
  const left = status.alarms_left_out;
  if (left > 0) items.push(kept(`left ${left}`, () => make("p", { class: "note" }, `and ${count(left)} alarms more: weir status --json has all`)));
  if (items.length === 0) items.push(kept("none", () => make("p", { class: "calm" }, "✓ No alarms")));
  const box = byId("alarms");
  if (items.length !== box.children.length || items.some((item, at) => box.children[at] !== item)) box.replaceChildren(...items);
  for (const [key, element] of boxes) if (!items.includes(element)) boxes.delete(key);
  // Only their number is read out: the figures change with every poll.
  say(byId("alarm-count"), `${count(status.alarms.length + left)} alarms`);
}

function kept(key, create) {
  if (!boxes.has(key)) boxes.set(key, create());
  return boxes.get(key);
}

function kindOf(name, list) {
  const details = kept(name, () => make("details", { class: "alarm" },
    make("summary", {}, make("b", {}, `✖ ${name.replaceAll("_", " ")}`), " ", make("span")), make("div")));
  const [first, ...others] = list;
  const more = others.length > 0 ? `, and ${count(others.length)} more` : "";
  say(details.querySelector("summary span"), `${shownPlace(first.where)}: ${first.what}${more}`);
  renew(details.lastChild, list.map(explained));
  return details;
}

function explained(alarm) {
  const figures = Object.entries(alarm.figures).map(([name, value]) => figure(name, value)).join(", ");
  return make("p", {}, make("b", {}, shownPlace(alarm.where)), ` ${alarm.what} (${figures}). ${alarm.remedy}.`);
}

function figure(name, value) {
  const words = name.replaceAll("_", " ");
  if (name.endsWith("_bps")) return `${words.slice(0, -4)} ${bits(value)}`;
  return `${words} ${count(value)}`;
}

let before = null;

/** Sums of the ledgers by reason, with what was dropped since the poll before. */
export function drops(status) {
  const sums = new Map();
  let received = 0;
  for (const ledger of status.ledger) {
    received += ledger.received.packets;
    for (const [reason, { packets, bytes }] of Object.entries(ledger.dropped)) {
      const sum = sums.get(reason) ?? { packets: 0, bytes: 0 };
      sums.set(reason, { packets: sum.packets + packets, bytes: sum.bytes + bytes });
    }
  }
  const seconds = before && status.uptime_seconds > before.up ? status.uptime_seconds - before.up : 0;
  const rows = [...sums].sort(([, a], [, b]) => b.packets - a.packets).map(([reason, sum]) => {
    const then = before?.sums.get(reason)?.packets ?? 0;
    const rate = seconds > 0 && sum.packets >= then ? count((sum.packets - then) / seconds) : "–";
    const name = make("span", {}, make("b", {}, reason), make("small", {}, REASONS[reason] ?? ""));
    return [name, right(rate), sum.packets, right(octets(sum.bytes)), right(percent(sum.packets / Math.max(1, received)))];
  });
  // Short differences say little; the next poll compares with the same reading.
  if (!before || seconds === 0 || seconds > 0.9) before = { up: status.uptime_seconds, sums };
  const head = [["Reason"], ["Now, pkt/s", true], ["Packets", true], ["Bytes", true], ["Of received", true]];
  fill(byId("drops"), head, rows, "Nothing was dropped since weir started.");
}

const right = (text) => make("span", { class: "right" }, text);

export function ports(status) {
  const rows = status.ports.map((port) => {
    const now = port.delivered.last_second_bps;
    const load = port.rate_bps
      ? make("span", { class: "load" }, make("meter", { min: 0, max: port.rate_bps, value: now, "aria-label": "load" }), percent(now / port.rate_bps))
      : "no rate set";
    const name = make("span", {}, make("b", {}, shown("port", port.port)),
      make("small", {}, `${shown("interface", port.interface)}, ${port.side}, ${port.xdp} ${port.mode}`));
    return [name, right(bits(now)), right(port.rate_bps ? bits(port.rate_bps) : "–"), load];
  });
  fill(byId("ports"), [["Port"], ["Sends", true], ["Rate", true], ["Load"]], rows, "There are no ports.");
}

export function rings(status) {
  const rows = status.ports.flatMap((port) => port.rings.filter((ring) => ring.high_watermark > 0).map((ring) => {
    const of = ring.sojourn_us;
    const time = (us) => right(of.packets > 0 ? micros(us) : "–");
    const name = make("span", {}, make("b", {}, `${shown("port", port.port)} ${shown("class", ring.class)}`), make("small", {}, ring.half));
    return [name, ring.held, ring.high_watermark, time(of.p50), time(of.p99), time(of.max)];
  }));
  const head = [["Ring"], ["Waiting", true], ["Most", true], ["p50", true], ["p99", true], ["Longest", true]];
  fill(byId("rings"), head, rows, "No packet has had to wait.");
}

export function workers(status) {
  const rows = status.workers.map((worker) => {
    const state = worker.stalled ? "stalled" : worker.state;
    const sign = state === "run" ? "✓" : "✖";
    return [`${worker.worker}`, `${worker.cpu ?? "not pinned"}`, make("span", { class: `state ${state}` }, `${sign} ${state}`),
      worker.generation, worker.turns_per_second, right(worker.packets_per_turn.toFixed(2)), right(`${count(worker.free_frames)} of ${count(worker.frames)}`)];
  });
  const head = [["Worker"], ["Core"], ["State"], ["Table", true], ["Turns/s", true], ["Packets/turn", true], ["Frames free", true]];
  fill(byId("workers"), head, rows, "There are no workers.");
}

export function events(list) {
  const items = list.slice(-200).reverse().map((event) =>
    make("li", { class: event.kind },
      make("time", { datetime: event.time }, clock(event.at)),
      make("b", {}, `${SIGNS[event.kind] ?? "•"} ${event.kind.replaceAll("_", " ")}`),
      make("span", {}, shownText(event.message))));
  renew(byId("events"), items);
}
