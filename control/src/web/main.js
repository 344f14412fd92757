// The page: asks every PERIOD, keeps ten minutes, draws. Reads only; nothing here changes the appliance.

import { read, token, TokenNeeded } from "./api.js";
import * as chart from "./chart.js";
import * as map from "./map.js";
import * as series from "./series.js";
import * as tables from "./tables.js";
import { bits, byId, clock, count, duration, isRedacting, make, nameOf, octets, percent, say, setRedacting, shown, shownContract, shownText } from "./text.js";

/** Milliseconds between two polls. The appliance takes a reading a second. */
const PERIOD = 2000;
/** Contracts of one page: the most that the API gives at once. */
const PAGE = 1000;
/** Events kept, as many as the appliance keeps. */
const EVENTS_MAX = 512;
/** Age from which figures are shown as old. */
const STALE = 5000;

const page = { offset: 0, chosen: null, status: null, contracts: null, contract: null, events: [], after: 0, born: 0 };
/** When figures came last, by this browser's clock, and why they do not come. */
const link = { at: 0, error: null };
let timer = 0;
let polls = 0;

function start() {
  map.start(choose);
  chart.legend();
  byId("window").addEventListener("change", draw);
  byId("filter").addEventListener("input", () => {
    page.offset = 0;
    soon(250);
  });
  byId("redact").addEventListener("change", (event) => {
    setRedacting(event.target.checked);
    // What was typed may be a name too.
    byId("filter").type = event.target.checked ? "password" : "search";
    draw();
  });
  byId("page-back").addEventListener("click", () => turn(-PAGE));
  byId("page-on").addEventListener("click", () => turn(PAGE));
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token.keep(byId("token").value.trim());
    byId("token").value = "";
    soon(0);
  });
  byId("forget").addEventListener("click", () => {
    token.forget();
    location.reload();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : soon(0)));
  window.addEventListener("resize", drawChart);
  setInterval(showAge, 1000);
  soon(0);
}

/** The next poll comes after so many milliseconds, and replaces whatever was to come. */
function soon(ms) {
  clearTimeout(timer);
  timer = setTimeout(poll, ms);
}

async function poll() {
  const number = ++polls;
  let needsToken = false;
  try {
    await ask(number);
  } catch (error) {
    if (number !== polls) return;
    needsToken = error instanceof TokenNeeded;
    link.error = error.name === "TimeoutError" ? "no answer in time" : error.message;
    if (needsToken) wantToken(error.message);
  }
  // A newer poll goes on by itself; a hidden tab rests until it is seen.
  if (number === polls && !needsToken && !document.hidden) soon(PERIOD);
  showAge();
}

async function ask(number) {
  const [status, contracts, one] = await Promise.all([
    read("status"),
    read("contracts", { sort: "trouble", limit: PAGE, offset: page.offset, search: byId("filter").value.trim() }),
    page.chosen ? read("contracts", parts(page.chosen)) : null,
  ]);
  // Another process counts its events from 1 again. Both figures are of one clock, and a small step of it is no restart.
  const born = Date.parse(status.time) - status.uptime_seconds * 1000;
  const hasRestarted = Math.abs(born - page.born) > 2000;
  const events = await read("events", { after: hasRestarted ? 0 : page.after });
  // Meanwhile the filter or the page was changed: what came answers another question.
  if (number !== polls) return;
  link.at = Date.now();
  link.error = null;
  Object.assign(page, { status, contracts, born });
  const keep = series.keep(contracts);
  contracts.contracts.forEach((contract) => keep(nameOf(contract), contract));
  if (!page.chosen && contracts.contracts.length > 0) page.chosen = nameOf(contracts.contracts[0]);
  page.contract = contracts.contracts.find((contract) => nameOf(contract) === page.chosen)
    ?? one?.contracts.find((contract) => nameOf(contract) === page.chosen) ?? null;
  if (page.contract && one) keep(page.chosen, page.contract);
  series.prune(Date.parse(contracts.time));
  page.after = events.events.at(-1)?.number ?? (hasRestarted ? 0 : page.after);
  keepEvents(events.events);
  byId("token-form").hidden = true;
  byId("main").hidden = false;
  byId("forget").hidden = !token.get();
  draw();
}

function keepEvents(events) {
  const known = new Set(page.events.map((event) => event.time));
  const fresh = events.filter((event) => !known.has(event.time)).map((event) => ({ ...event, at: Date.parse(event.time) }));
  page.events = [...page.events, ...fresh].slice(-EVENTS_MAX);
}

/** The parameters that find one contract by its name. */
function parts(name) {
  const [service, cls, direction, segment] = name.split("/");
  return { service, class: cls, direction, segment: segment ?? "", limit: PAGE };
}

function wantToken(why) {
  token.forget();
  byId("main").hidden = true;
  byId("token-form").hidden = false;
  if (why) say(byId("token-why"), why);
  byId("token").focus();
}

function choose(name) {
  page.chosen = name;
  page.contract = page.contracts.contracts.find((contract) => nameOf(contract) === name) ?? null;
  draw();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId("contract").scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}

function turn(by) {
  page.offset = Math.max(0, page.offset + by);
  soon(0);
}

function draw() {
  const { status, contracts } = page;
  if (!status) return;
  document.title = isRedacting() ? "weir" : `weir ${status.region}`;
  say(byId("region"), shown("region", status.region));
  say(byId("facts"), `${status.version}, up ${duration(status.uptime_seconds)}, table ${status.generation}, ${count(status.contracts)} contracts`);
  tables.alarms(status, problems(status));
  const classes = (status.ports[0]?.rings ?? []).map((ring) => ring.class);
  map.update(contracts.contracts, byId("filter").value ? [] : status.uncontracted, classes, byId("window").value, page.chosen);
  drawNote();
  drawChart();
  drawContract();
  tables.drops(status);
  tables.ports(status);
  tables.rings(status);
  tables.workers(status);
  tables.events(page.events);
}

/** What is no alarm but should be known. */
function problems(status) {
  const list = [];
  if (status.trial) list.push(`On trial: goes back in ${duration(status.trial.seconds_left)} unless it is confirmed.`);
  if (status.last_reload_error) list.push(`The last change was refused: ${shownText(status.last_reload_error)}`);
  if (status.disk?.differs) list.push(`Files on disk differ from what runs: ${shownText(status.disk.summary)}`);
  if (status.history_error) list.push(`History: ${shownText(status.history_error)}`);
  return list;
}

function drawNote() {
  const { total, offset, contracts } = page.contracts;
  const all = total <= PAGE;
  const range = all ? `${count(total)} contracts` : `Contracts ${count(offset + 1)} to ${count(offset + contracts.length)} of ${count(total)}`;
  const more = all ? "" : " A page has at most 1,000; the filter looks into all of them.";
  say(byId("map-note"), total === 0 ? "No contract matches." : `${range}, most trouble within the last minute first. The share is what conformed and was delivered, of what was offered.${more}`);
  byId("pager").hidden = all;
  byId("page-back").disabled = offset === 0;
  byId("page-on").disabled = offset + PAGE >= total;
}

function drawChart() {
  if (!page.chosen || !page.contracts) return;
  const title = page.contract ? shownContract(page.contract) : "Contract";
  say(byId("contract-head"), title);
  chart.update(title, series.of(page.chosen), page.events, Date.parse(page.contracts.time));
}

function drawContract() {
  const contract = page.contract;
  say(byId("chart-note"), "Kept in this tab for ten minutes; a gap is time without figures. ⇄ and other signs mark events, listed below.");
  if (!contract) {
    byId("contract-facts").replaceChildren(make("dt", {}, "State"), make("dd", {}, page.chosen ? "It is no longer in the table." : "There are no contracts."));
    return;
  }
  const minute = contract.rates?.last_minute;
  const { kind, share } = map.judge(contract, minute ?? { offered_bps: 0 });
  const dropped = Object.entries(contract.dropped).map(([reason, { packets }]) => `${reason} ${count(packets)}`);
  const amount = ({ packets, bytes }) => `${count(packets)} packets, ${octets(bytes)}`;
  const facts = {
    Entitled: contract.active ? bits(contract.rate_bps) : "not now: outside its period",
    "Last minute": minute && kind !== "idle" ? `${bits(minute.offered_bps)} offered, ${percent(share)} conforming and delivered` : "no traffic",
    Offered: amount(contract.offered),
    Conforming: amount(contract.conforming),
    Excess: `${amount(contract.nonconforming)}; re-marked ${count(contract.remarked.packets)}`,
    Dropped: dropped.length > 0 ? `${dropped.join(", ")} packets` : "nothing",
    "Conforming dropped": amount(contract.conforming_dropped),
    "In the bucket": contract.tokens ? octets(contract.tokens.committed) : "–",
  };
  byId("contract-facts").replaceChildren(...Object.entries(facts).map(([term, text]) =>
    make("div", {}, make("dt", {}, term), make("dd", {}, text))));
}

/** Says how old the figures are, and greys them when they are old. */
function showAge() {
  const age = link.at ? Date.now() - link.at : 0;
  const isStale = link.at > 0 && age > STALE && !document.hidden;
  const wants = !byId("token-form").hidden;
  document.body.classList.toggle("stale", isStale);
  const banner = byId("banner");
  banner.hidden = wants || !(isStale || (link.error && !link.at));
  if (!banner.hidden) {
    const since = link.at ? ` The figures below are of ${clock(link.at)}, ${duration(age / 1000)} ago.` : "";
    say(banner, `✖ The appliance does not answer (${link.error ?? "waiting"}).${since} Trying again every ${PERIOD / 1000} s.`);
  }
  const state = wants ? "wants a token" : isStale || !link.at ? (link.error ? "no answer" : "connecting") : link.error ? "late" : "live";
  byId("state").className = state.replaceAll(" ", "-");
  say(byId("state"), { live: "● live", late: "◐ late", "no answer": "✖ no answer" }[state] ?? state);
}

start();
