// Words, numbers and elements: what the other files share. Texts of the appliance go into the page as text, never as HTML.

/** An element with attributes and children; a child may be a text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  set(element, attributes);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for SVG. */
export function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  set(element, attributes);
  element.append(...children);
  return element;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
}

export const byId = (id) => document.getElementById(id);

/** Sets a text only where it differs, so that screen readers and selections are left alone. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const STEPS = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

function scaled(value, unit) {
  const [step, prefix] = STEPS.find(([step]) => value >= step) ?? [1, ""];
  const number = value / step;
  const digits = number >= 100 || (step === 1 && Number.isInteger(number)) ? 0 : number >= 10 ? 1 : 2;
  return `${Number(number.toFixed(digits))} ${prefix}${unit}`;
}

/** `7.3 Mbit/s`. */
export const bits = (bps) => scaled(bps, "bit/s");
/** `1.2 MB`. */
export const octets = (bytes) => scaled(bytes, "B");
/** `1,234,567`. */
export const count = (number) => Math.round(number).toLocaleString("en");

/** `15.4 ms`. */
export function micros(us) {
  const [value, unit] = us >= 1e6 ? [us / 1e6, "s"] : us >= 1e3 ? [us / 1e3, "ms"] : [us, "µs"];
  return `${Number(value.toPrecision(3))} ${unit}`;
}

/** `3 d 4 h`, `12 min`, `40 s`. */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A share in words; never rounded to all or nothing unless it is. */
export function percent(share) {
  const value = share * 100;
  if (value > 0 && value < 1) return "< 1 %";
  if (value > 99 && value < 100) return "> 99 %";
  return `${Math.round(value)} %`;
}

/** The browser's local time of a moment in milliseconds. */
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

/** `service/class/direction[/segment]`, as `weir show contract` takes it. */
export const nameOf = (contract) =>
  [contract.service, contract.class, contract.direction, contract.segment].filter((part) => part).join("/");

const known = new Map();
let redacting = false;

export const isRedacting = () => redacting;

export function setRedacting(on) {
  redacting = on;
}

/** A name of the configuration, or, while names are redacted, a stand-in that stays the same until the page is loaded anew. */
export function shown(kind, name) {
  if (!redacting || !name) return name;
  if (!known.has(kind)) known.set(kind, new Map());
  const names = known.get(kind);
  if (!names.has(name)) names.set(name, `${kind}-${names.size + 1}`);
  return names.get(name);
}

export const shownContract = (contract) =>
  [shown("service", contract.service), shown("class", contract.class), contract.direction, shown("segment", contract.segment)]
    .filter((part) => part)
    .join("/");

/** Free text may hold any name. */
export const shownText = (text) => (redacting ? "(redacted)" : text);

/** The place of an alarm: `port lan queue 0`, `worker 0`, `uncontracted/class/direction`, or a contract. */
export function shownPlace(place) {
  if (!redacting) return place;
  const port = place.match(/^port (.+?)( queue \d+)?$/);
  if (port) return `port ${shown("port", port[1])}${port[2] ?? ""}`;
  if (/^worker \d+$/.test(place) || place.startsWith("not IP/")) return place;
  const [service, cls, direction, segment] = place.split("/");
  if (service === "uncontracted") return `uncontracted/${shown("class", cls)}/${direction}`;
  return shownContract({ service, class: cls, direction, segment });
}

/** Fills a table: a row of headings, then rows of cells. A cell is a text, a number (to the right) or an element. */
export function fill(table, headings, rows, nothing) {
  const cell = (value) => {
    const right = typeof value === "number";
    return make("td", { class: right && "n" }, right ? count(value) : value);
  };
  const head = headings.map(([text, right]) => make("th", { scope: "col", class: right && "n" }, text));
  const lines = rows.map(([first, ...others]) =>
    make("tr", {}, make("th", { scope: "row" }, first), ...others.map(cell)));
  if (lines.length === 0) lines.push(make("tr", {}, make("td", { colspan: headings.length, class: "none" }, nothing)));
  table.replaceChildren(make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines));
}
