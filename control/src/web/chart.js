// The time series of one contract: ten minutes of offered, conforming, excess and dropped, the entitlement as a line, and
// a mark where something happened.

import { LINES, SPAN } from "./series.js";
import { bits, byId, clock, draw, duration, make, shownText } from "./text.js";

const HEIGHT = 240;
const LEFT = 78;
const RIGHT = 12;
const TOP = 22;
const BOTTOM = 24;

/** What an event looks like on the time axis and in the list. */
export const SIGNS = {
  started: "▶", swapped: "⇄", refused: "✖", trial_began: "◔", trial_ended: "●", trial_reverted: "↶", link_up: "△",
  link_down: "▽", interface_gone: "▽", sockets_lost: "▽", program_detached: "▽", mtu_too_large: "!", queues_changed: "!",
  port_mended: "✓", worker_stale: "!", worker_back: "✓", unaccounted: "!",
};

/** A scale that ends at a round number. */
export function nice(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1000)));
  return [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10].map((step) => step * power).find((end) => end >= most) ?? 10 * power;
}

export function legend() {
  const item = (line) => make("li", {}, draw("svg", { viewBox: "0 0 22 8", "aria-hidden": "true" },
    draw("path", { class: `line ${line}`, d: "M1 4h20" })), ` ${line}`);
  byId("chart-legend").replaceChildren(...[...LINES, "entitled"].map(item));
}

/** Draws samples up to `now`, and the events among them. */
export function update(title, samples, events, now) {
  const box = byId("chart");
  const width = Math.max(280, Math.floor(box.clientWidth) || 800);
  const most = Math.max(1, ...samples.map(({ rates, entitled }) => Math.max(entitled, ...(rates ?? [0]))));
  const top = nice(most * 1.05);
  const begin = now - SPAN;
  const x = (time) => LEFT + ((time - begin) / SPAN) * (width - LEFT - RIGHT);
  const y = (bps) => HEIGHT - BOTTOM - (bps / top) * (HEIGHT - TOP - BOTTOM);
  const newest = samples.at(-1);
  const words = newest?.rates
    ? `${title}, now: ${LINES.map((line, at) => `${line} ${bits(newest.rates[at])}`).join(", ")}, entitled ${bits(newest.entitled)}`
    : `${title}: no figures yet`;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": words });
  svg.append(...axes(width, top, now, x, y));
  if (samples.length > 0) {
    const area = path(samples, x, y, (sample) => sample.rates?.[1]);
    if (area.closed) svg.append(draw("path", { class: "area conforming", d: area.closed }));
    svg.append(draw("path", { class: "line entitled", d: path(samples, x, y, (sample) => sample.entitled || undefined).open }));
    LINES.forEach((line, at) =>
      svg.append(draw("path", { class: `line ${line}`, d: path(samples, x, y, (sample) => sample.rates?.[at]).open })));
  }
  svg.append(...marks(events, begin, x));
  box.replaceChildren(svg);
}

function axes(width, top, now, x, y) {
  const parts = [];
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const at = y(top * share);
    parts.push(draw("path", { class: "grid", d: `M${LEFT} ${at}H${width - RIGHT}` }));
    parts.push(draw("text", { class: "tick", x: LEFT - 6, y: at + 4, "text-anchor": "end" }, bits(top * share)));
  }
  const every = width < 520 ? 300_000 : 120_000;
  for (let ago = 0; ago <= SPAN; ago += every) {
    const text = ago === 0 ? "now" : `-${duration(ago / 1000)}`;
    const anchor = ago === 0 ? "end" : ago === SPAN ? "start" : "middle";
    parts.push(draw("text", { class: "tick", x: x(now - ago), y: HEIGHT - 6, "text-anchor": anchor }, text));
  }
  return parts;
}

/** A line through what is known, with gaps where it is not; and the area under it. */
function path(samples, x, y, value) {
  let [open, closed, run] = ["", "", []];
  const end = () => {
    if (run.length > 0) {
      const points = run.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`);
      // One reading alone would be a line of no length.
      open += run.length === 1 ? `M${points[0]}h2` : `M${points.join("L")}`;
      closed += `M${run[0][0].toFixed(1)} ${y(0)}L${points.join("L")}L${run.at(-1)[0].toFixed(1)} ${y(0)}Z`;
    }
    run = [];
  };
  for (const sample of samples) {
    const bps = value(sample);
    if (bps === undefined) end();
    else run.push([Math.max(LEFT, x(sample.time)), y(bps)]);
  }
  end();
  return { open, closed };
}

function marks(events, begin, x) {
  return events.filter((event) => event.at > begin).map((event) => {
    const at = x(event.at).toFixed(1);
    return draw("g", { class: `mark ${event.kind}` },
      draw("title", {}, `${clock(event.at)} ${event.kind.replaceAll("_", " ")}: ${shownText(event.message)}`),
      draw("path", { d: `M${at} ${TOP - 4}V${HEIGHT - BOTTOM}` }),
      draw("text", { x: at, y: TOP - 8, "text-anchor": "middle" }, SIGNS[event.kind] ?? "•"));
  });
}
