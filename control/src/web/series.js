// The last ten minutes of every contract that was seen, made of the differences of its counters.

/** How far back, in milliseconds. */
export const SPAN = 600_000;
/** Samples are not closer than this: the counters are read once a poll, and a short difference says little. */
const APART_MIN = 900;
/** Readings farther apart than this are not joined: the tab was hidden, or the contract was on another page. */
const APART_MAX = 15_000;

export const LINES = ["offered", "conforming", "excess", "dropped"];

const series = new Map();
let uptime = 0;

/** Keeps what an answer of `contracts` says. */
export function keep(answer) {
  const time = Date.parse(answer.time);
  // The process is another one: what was counted before is no base for what is counted now.
  if (answer.uptime_seconds < uptime) for (const one of series.values()) one.last = null;
  uptime = answer.uptime_seconds;
  return (name, contract) => {
    if (!series.has(name)) series.set(name, { samples: [], last: null });
    sample(series.get(name), contract, time, answer.uptime_seconds * 1000);
  };
}

function sample(one, contract, time, up) {
  const dropped = Object.values(contract.dropped).reduce((sum, reason) => sum + reason.bytes, 0);
  const now = [contract.offered.bytes, contract.conforming.bytes, contract.nonconforming.bytes, dropped];
  const before = one.last;
  if (before && up - before.up < APART_MIN) return;
  one.last = { now, up };
  const apart = before ? up - before.up : Infinity;
  // Counters that went back began anew, as those of a contract that went and came again.
  const joined = apart <= APART_MAX && now.every((value, at) => value >= before.now[at]);
  const rates = joined ? now.map((value, at) => ((value - before.now[at]) * 8000) / apart) : null;
  one.samples.push({ time, rates, entitled: contract.active ? contract.rate_bps : 0 });
  const first = one.samples.findIndex((kept) => kept.time > time - SPAN);
  if (first > 0) one.samples.splice(0, first);
}

/** Samples of a contract, oldest first: `{time, rates: [offered, conforming, excess, dropped] or null, entitled}`. */
export const of = (name) => series.get(name)?.samples ?? [];

/** Forgets contracts that were not seen for as long as the series goes back. */
export function prune(now) {
  for (const [name, one] of series) {
    const newest = one.samples.at(-1);
    if (!newest || newest.time < now - SPAN) series.delete(name);
  }
}
