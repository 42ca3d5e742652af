// The connection: the board is heard once a second over /updates, and looked for again when it is not.

import { STATES, now, page, pausedBy } from "./board.js";
import { ago, announce, clockAt, say, show, whoseWords } from "./words.js";

export const GONE_MS = 3000; // without a word from the board, all that is shown is old
const SILENT_MS = 8000; // ... and the connection is dead, though nobody has closed it
const LONGEST_WAIT_MS = 15000;
export const SECONDS = 120;

const link = { events: null, heardMs: 0, tries: 0, timer: 0, probe: null, nextMs: 0, openedMs: 0, fresh: true, probed: false, crowded: false };
const told = {};

/** Whom to tell: of a `status`, of all `moments`, of one `moment`, and that a board is `back`. */
export function listen(listeners) {
  Object.assign(told, listeners);
}

function connect() {
  disconnect();
  const events = new EventSource("/updates");
  link.events = events;
  link.openedMs = now();
  link.fresh = true;
  events.addEventListener("status", (event) => heard(JSON.parse(event.data)));
  events.addEventListener("moment", (event) => told.moment(JSON.parse(event.data)));
  events.onerror = lost;
}

/** Begin anew, without the waits of before. */
export function reconnect() {
  page.resumedMs = now();
  link.tries = 0;
  connect();
}

export function disconnect() {
  clearTimeout(link.timer);
  link.probe?.abort();
  link.events?.close();
  link.events = null;
  link.nextMs = 0;
}

/** Try again, each time later: the browser's own way gives up on some errors and never waits longer on others. */
function lost() {
  disconnect();
  link.crowded = link.probed; // it answers, but does not let us watch
  link.probed = false;
  const wait = Math.min(LONGEST_WAIT_MS, 500 * 2 ** link.tries) * (0.8 + 0.4 * Math.random());
  link.tries += 1;
  link.nextMs = now() + wait;
  link.timer = setTimeout(retry, wait);
}

/** An EventSource does not tell why it failed; this does. */
export async function retry() {
  disconnect();
  const mine = new AbortController();
  link.probe = mine;
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.any([mine.signal, AbortSignal.timeout(GONE_MS)]) });
    if (mine.signal.aborted) return;
    if (answer.status === 401) location.reload(); // to where one signs in
    else if (!answer.ok) lost();
    else {
      link.probed = true;
      connect();
    }
  } catch {
    if (!mine.signal.aborted) lost(); // else another try, or a tab that nobody sees, has ended this one
  }
}

function heard(message) {
  const before = page.status;
  const wasGone = !before || now() - link.heardMs > GONE_MS;
  const restarted = before !== null && message.status.seconds < before.seconds;
  link.heardMs = now();
  Object.assign(link, { tries: 0, probed: false, crowded: false });
  page.session = message.session;
  keepHistory(message.status, restarted);
  page.status = message.status;
  if (link.fresh) told.moments(message.moments);
  link.fresh = false;
  if ((before && wasGone) || restarted) told.back();
  if (before) tellChanges(before, page.status, wasGone);
  told.status();
}

/** After the first message of a connection the board sends the newest seconds only, up to second `end`. */
function keepHistory(status, restarted) {
  const { end, ...columns } = status.history;
  const before = link.fresh || restarted ? null : page.history;
  const missed = before ? end - before.end : 0;
  page.history = { end };
  for (const [name, values] of Object.entries(columns)) {
    const fresh = missed > 0 ? values.slice(-missed) : [];
    const gap = Array(Math.max(0, Math.min(missed, SECONDS) - fresh.length)).fill(null);
    page.history[name] = before ? [...before[name], ...gap, ...fresh].slice(-SECONDS) : values.slice(-SECONDS);
  }
}

function tellChanges(before, after, wasGone) {
  if (wasGone) return announce("Connected again.");
  if (before.controls.paused !== after.controls.paused) announce(after.controls.paused ? `Paused${whoseWords(pausedBy(after))}.` : "Not paused any more.");
  after.sources.forEach((source, place) => {
    if (before.sources[place]?.state !== source.state) announce(`${source.name}: ${STATES[source.state] ?? source.state} ${source.trouble}`);
  });
  if (before.offload?.breaker !== after.offload?.breaker) announce(after.offload?.breaker === "open" ? "The endpoint is away." : "The endpoint is asked again.");
  if (before.offload && after.offload?.revised > before.offload.revised) page.answeredMs = now();
}

export const isGone = (ms) => ms - Math.max(link.heardMs, page.resumedMs) > GONE_MS;
export const isLive = () => document.body.dataset.link === "live";
export const sinceHeard = (ms) => ms - link.heardMs;

/** Say whether the board is there; whether that has changed. */
export function tickLink(ms) {
  const gone = isGone(ms);
  const state = gone ? "gone" : link.heardMs >= page.resumedMs ? "live" : "connecting";
  const changed = document.body.dataset.link !== state;
  if (changed) {
    document.body.dataset.link = state;
    say("link", { gone: "Disconnected", live: "Live", connecting: "Connecting" }[state]);
    document.title = gone ? "Disconnected · edge-run" : "edge-run";
    if (gone) announce("Disconnected. What is shown is old.");
  }
  show("banner", gone);
  if (gone) {
    const without = link.crowded ? ": the board has too many viewers." : ": the board does not answer.";
    say("banner-heard", link.heardMs ? `: last heard ${clockAt(link.heardMs)}, ${ago(ms - link.heardMs)} ago.` : without);
    say("banner-next", link.nextMs > ms ? ` Trying again in ${Math.ceil((link.nextMs - ms) / 1000)} s.` : " Trying again now.");
  }
  if (link.events && ms - Math.max(link.heardMs, link.openedMs) > SILENT_MS) lost();
  return changed;
}
