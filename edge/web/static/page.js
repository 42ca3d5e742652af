"use strict";
// The live page. It hears of the board once a second over /updates, and asks for one picture after the other; a tab that
// nobody looks at asks for nothing. What comes from the board is only ever written as text.

/**
 * @typedef {{number: number, name: string, live: boolean, state: string, trouble: string, quiet_s: ?number, fps: number, frames: number,
 *   dropped: number, skipped: number, paced: number, result: ?Answered, cloud: ?Answered}} Source
 * @typedef {{seq: number, caption: string, label: ?string, confidence: number, action: string, served_by: string}} Answered
 * @typedef {{paused: boolean, paused_by: ?string, threshold: ?number, score_threshold: ?number, gate: ?boolean}} Controls
 * @typedef {{id: number, at: string, kind: string, source: ?number, text: string, picture: boolean}} Moment
 */

const GONE_MS = 3000; // without a word from the board, all that is shown is old
const SILENT_MS = 8000; // ... and the connection is dead, though nobody has closed it
const STILL_MS = 2000; // without a new picture, unless they always come as seldom
const OLD_MS = 3000; // what a picture may be older than that
const ANSWERED_MS = 2500; // how long the light says so
const LONGEST_WAIT_MS = 15000;
const SECONDS = 120;
const MOMENTS = 30;

const STATES = { starting: "starting", open: "open", stalled: "stalled", lost: "lost", ended: "ended" };
const LIGHTS = { none: "No offload", idle: "Idle", asking: "Asking", answered: "Answered", trying: "Trying again", away: "Endpoint away", unknown: "Not known" };
const HINTS = {
  threshold: "Asks when less sure than this.",
  score_threshold: "Reports nothing that scores less.",
  gate: "No inference while nothing moves.",
};
const NOTHING_TO_SET = {
  threshold: "No threshold decides here.",
  score_threshold: "This model has no such score.",
  gate: "No motion gate runs (--motion-gate).",
};

const byId = (/** @type {string} */ id) => document.getElementById(id);
const later = (/** @type {number} */ ms) => new Promise((done) => setTimeout(done, ms));

const passed = { ms: 1e6, steadyMs: performance.now(), wallMs: Date.now() };

/**
 * Milliseconds that only ever grow. The steady clock may stand still while the machine sleeps, and old numbers would look
 * new; the wall clock may be set back. So the steady one counts, and the wall clock where it is more than a second ahead.
 */
function now() {
  const [steadyMs, wallMs] = [performance.now(), Date.now()];
  const [steady, wall] = [steadyMs - passed.steadyMs, wallMs - passed.wallMs];
  Object.assign(passed, { ms: passed.ms + (wall > steady + 1000 ? wall : steady), steadyMs, wallMs });
  return passed.ms;
}

const page = { status: null, session: null, history: null, moments: [], source: 1, answeredMs: 0, resumedMs: now() };
const link = { events: null, heardMs: 0, tries: 0, timer: 0, probe: null, nextMs: 0, openedMs: 0, fresh: true, probed: false, crowded: false };
const picture = { seq: -1, askedMs: now(), shownMs: 0, takenMs: 0, times: [], watching: null };

/** Write a text, if it is another one. */
function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function show(id, shown) {
  byId(id).hidden = !shown;
}

function announce(text) {
  byId("announce").textContent = text;
}

// Words for numbers

function ago(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return `${s}\u00a0s`;
  return s < 7200 ? `${Math.floor(s / 60)}\u00a0min` : `${Math.floor(s / 3600)}\u00a0h`;
}

const clock = (when) => new Date(when).toLocaleTimeString("en-GB");
/** What the clock showed at a time of `now`. */
const clockAt = (ms) => clock(Date.now() - (now() - ms));
const count = (n) => n.toLocaleString("en-US").replaceAll(",", "\u202f");
const milliseconds = (ms) => (ms < 10 ? ms.toFixed(1) : Math.round(ms).toString());
const fraction = (value) => (Number.isInteger(value * 100) ? value.toFixed(2) : String(Number(value.toFixed(4))));
const whoseWords = (who) => ({ web: " from a live page", mqtt: " over MQTT" })[who] ?? "";

function bytes(n) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (n >= size) return `${(n / size).toFixed(n < 10 * size ? 1 : 0)} ${unit}`;
  return `${n} B`;
}

/** A classifier's caption ends in its score, which stands beside it. */
function withoutScore(result) {
  const { caption, label } = result;
  return label && caption.startsWith(`${label} `) && /^\d+%$/.test(caption.slice(label.length + 1)) ? label : caption;
}

// The connection

function connect() {
  disconnect();
  const events = new EventSource("/updates");
  link.events = events;
  link.openedMs = now();
  link.fresh = true;
  events.addEventListener("status", (event) => heard(JSON.parse(event.data)));
  events.addEventListener("moment", (event) => addMoment(JSON.parse(event.data)));
  events.onerror = lost;
}

function disconnect() {
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
async function retry() {
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
  if (link.fresh) setMoments(message.moments);
  link.fresh = false;
  if ((before && wasGone) || restarted) {
    picture.seq = -1; // a board that was started again counts from 0
    watch();
  }
  if (before) tellChanges(before, page.status, wasGone);
  render();
  tick();
}

/** After the first message of a connection the board sends the newest second only. */
function keepHistory(status, restarted) {
  const missed = page.history && page.status ? Math.round(status.seconds - page.status.seconds) : 0;
  if (link.fresh || restarted || !page.history) page.history = {};
  for (const [name, values] of Object.entries(status.history)) {
    const kept = page.history[name];
    if (!kept) page.history[name] = values.slice(-SECONDS);
    else if (missed > 0 && values.length) page.history[name] = [...kept, ...Array(missed - 1).fill(null), values.at(-1)].slice(-SECONDS);
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

const pausedBy = (status) => status.controls.paused_by ?? null;

// The picture

/** Show one picture after the other; there is one such loop, and the newest ends the one before. */
async function watch() {
  picture.watching?.abort();
  picture.watching = null;
  if (document.hidden) return;
  const mine = new AbortController();
  picture.watching = mine;
  for (let failures = 0; !mine.signal.aborted; ) {
    const asked = now();
    try {
      const came = await nextPicture(mine.signal);
      failures = 0;
      if (!came && now() - asked < 500) await later(500); // the board could not wait for one
    } catch {
      if (!mine.signal.aborted) await later(Math.min(8000, 500 * 2 ** failures));
      failures += 1;
    }
  }
}

/** Wait for a picture and show it; false where none came in time. */
async function nextPicture(signal) {
  const url = `/frame.jpg?source=${page.source}&after=${picture.seq}`;
  const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.any([signal, AbortSignal.timeout(12000)]) });
  if (answer.status === 204) return false;
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  const taken = now() - Number(answer.headers.get("X-Edge-Age-Ms") ?? 0);
  const bitmap = await createImageBitmap(await answer.blob());
  if (signal.aborted) return bitmap.close();
  draw(bitmap);
  picture.seq = Number(answer.headers.get("X-Edge-Seq"));
  picture.takenMs = taken;
  picture.shownMs = now();
  picture.times = [...picture.times.slice(-49), picture.shownMs];
  tickPicture(picture.shownMs);
  await new Promise(requestAnimationFrame); // a browser that cannot keep up asks for fewer
  return true;
}

function draw(bitmap) {
  const canvas = byId("picture");
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    byId("stage").style.aspectRatio = `${bitmap.width} / ${bitmap.height}`;
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

/** Why there is no new picture, in words. */
function whyStill(source) {
  const { status } = page;
  if (!source) return "";
  if (source.state === "lost") return `Camera lost: ${source.trouble}`;
  if (source.state === "stalled") return `The camera stands still: ${source.trouble}`;
  if (source.state === "ended") return "The source has ended.";
  if (status.controls.paused) return `Paused${whoseWords(pausedBy(status))}.`;
  if (source.state === "starting") return "The camera is being opened.";
  return source.result?.action === "skip" ? "The scene is still." : "The board has sent none.";
}

/** When it is said that no picture comes: after two seconds, or twice as long as the last one took to come. */
function patience() {
  const [before, last] = picture.times.slice(-2);
  return last ? Math.max(STILL_MS, Math.min(30000, 2 * (last - before))) : STILL_MS;
}

function tickPicture(ms) {
  const gone = isGone(ms);
  const none = picture.shownMs === 0;
  const quiet = Math.max(ms - picture.shownMs - patience(), ms - picture.takenMs - patience() - OLD_MS) > 0;
  const old = !none && (gone || quiet);
  const told = old || (none && ms - picture.askedMs > STILL_MS);
  byId("stage").dataset.picture = none ? "none" : old ? "old" : "live";
  show("note", told);
  if (told) {
    const paused = page.status?.controls.paused && !gone;
    const title = none ? "No picture yet" : gone ? "Old picture" : paused ? "Paused" : `No new picture for ${ago(ms - picture.takenMs)}`;
    const since = none ? "" : `This one is of ${clockAt(picture.takenMs)}.`;
    say("note-title", title);
    say("note-text", gone ? "The board does not answer." : whyStill(currentSource()));
    say("note-since", since);
  }
  const recent = picture.times.filter((time) => ms - time < 5000);
  const rate = recent.length < 2 ? "" : ` · ${((1000 * (recent.length - 1)) / (recent.at(-1) - recent[0])).toFixed(1)} a second`;
  const age = ms - picture.takenMs;
  const words = age < 2000 ? `${(Math.max(0, age) / 1000).toFixed(1)} s old` : `${ago(age)} old`;
  say("picture-age", none ? "" : old ? words : words + rate);
}

// What changes with time, even if nothing comes

const isGone = (ms) => ms - Math.max(link.heardMs, page.resumedMs) > GONE_MS;

function tick() {
  const ms = now();
  const gone = isGone(ms);
  const state = gone ? "gone" : link.heardMs >= page.resumedMs ? "live" : "connecting";
  if (document.body.dataset.link !== state) {
    document.body.dataset.link = state;
    say("link", { gone: "Disconnected", live: "Live", connecting: "Connecting" }[state]);
    document.title = gone ? "Disconnected · edge-run" : "edge-run";
    if (gone) announce("Disconnected. What is shown is old.");
    if (page.status) {
      renderOffload(page.status.offload);
      renderControls();
    }
  }
  show("banner", gone);
  if (gone) {
    const without = link.crowded ? ": the board has too many viewers." : ": the board does not answer.";
    say("banner-heard", link.heardMs ? `: last heard ${clockAt(link.heardMs)}, ${ago(ms - link.heardMs)} ago.` : without);
    say("banner-next", link.nextMs > ms ? ` Trying again in ${Math.ceil((link.nextMs - ms) / 1000)} s.` : " Trying again now.");
  }
  if (link.events && ms - Math.max(link.heardMs, link.openedMs) > SILENT_MS) lost();
  tickPicture(ms);
  tickVerdict(ms);
}

function tickVerdict(ms) {
  const source = currentSource();
  if (!source) return;
  const quiet = source.quiet_s === null ? null : source.quiet_s * 1000 + ms - link.heardMs;
  const old = quiet === null || quiet > GONE_MS;
  byId("verdict").toggleAttribute("data-old", old);
  const { result, cloud } = source;
  const served = { accept: "Decided on the board", offload: "Unsure, so the endpoint is asked", skip: "Still scene, nothing new to see" };
  say("decided", !result ? "No result yet" : old ? `Last result ${ago(quiet)} ago` : served[result.action] ?? "");
  show("cloud", cloud !== null);
  if (cloud) say("cloud", `Endpoint on frame ${cloud.seq}: ${withoutScore(cloud)} ${Math.round(cloud.confidence * 100)}%`);
}

// What the board has told

/** @returns {?Source} */
const currentSource = () => page.status?.sources[page.source - 1] ?? null;

function render() {
  const { status, session } = page;
  const { model, board } = status;
  if (!currentSource()) page.source = 1;
  say("model", `${model.name} · ${model.variant} on ${model.engine} · ${board.title}`);
  byId("model").title = byId("model").textContent;
  show("logout", session.signed_in === true);
  say("foot", `edge-run ${session.version} · ${session.viewers} ${session.viewers === 1 ? "viewer" : "viewers"}`);
  renderTabs();
  renderVerdict(currentSource());
  renderOffload(status.offload);
  renderSpeed(status);
  renderHeat(board);
  renderBoard(status, currentSource());
  renderControls();
}

function renderTabs() {
  const { sources } = page.status;
  const tabs = byId("tabs");
  show("tabs", sources.length > 1);
  while (tabs.children.length < sources.length) tabs.append(tab(tabs.children.length + 1));
  while (tabs.children.length > sources.length) tabs.lastElementChild.remove(); // a board that was started again may have fewer
  sources.forEach((source, place) => {
    const button = tabs.children[place];
    const chosen = source.number === page.source;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
    button.title = `${source.name}: ${STATES[source.state] ?? source.state}`;
    button.firstChild.dataset.state = source.state;
    if (button.lastChild.textContent !== source.name) button.lastChild.textContent = source.name;
  });
}

function tab(number) {
  const button = element("button");
  button.type = "button";
  button.setAttribute("role", "tab");
  button.setAttribute("aria-controls", "stage");
  button.append(element("span", "dot"), element("span"));
  button.addEventListener("click", () => choose(number));
  return button;
}

/** Watch another source. */
function choose(number) {
  if (number === page.source || !page.status?.sources[number - 1]) return;
  page.source = number;
  history.replaceState(null, "", `#${number}`);
  Object.assign(picture, { seq: -1, askedMs: now(), shownMs: 0, takenMs: 0, times: [] });
  const canvas = byId("picture");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  watch();
  render();
  tick();
  byId("tabs").children[number - 1].scrollIntoView({ block: "nearest", inline: "nearest" });
}

function renderVerdict(source) {
  const { result } = source;
  say("caption", result ? withoutScore(result) : "–");
  byId("caption").title = result?.caption ?? "";
  say("confidence", result ? String(Math.round(result.confidence * 100)) : "–");
  say("confidence-unit", result ? "%" : "");
  byId("picture").setAttribute("aria-label", `${source.name}: ${result?.caption ?? "no result yet"}`);
  const { threshold } = page.status.controls;
  const { confidence, offloaded } = page.history;
  plot(byId("confidence-graph"), confidence, 1, 40);
  const line = byId("threshold-line");
  line.toggleAttribute("hidden", threshold === null);
  if (threshold !== null) for (const end of ["y1", "y2"]) line.setAttribute(end, String(40 - 40 * threshold));
  show("threshold-key", threshold !== null);
  show("asked-key", page.status.offload !== null);
  byId("asked").setAttribute("d", offloaded.map((n, place) => (n ? `M${place + SECONDS - offloaded.length} 40v-5` : "")).join(""));
}

function lightOf(offload) {
  if (!offload) return "none";
  if (document.body.dataset.link !== "live") return "unknown";
  if (offload.breaker !== "closed") return offload.breaker === "open" ? "away" : "trying";
  if (offload.asking > 0) return "asking";
  return now() - page.answeredMs < ANSWERED_MS ? "answered" : "idle";
}

function renderOffload(offload) {
  const light = lightOf(offload);
  byId("offload").dataset.light = light;
  say("light", LIGHTS[light]);
  say("offload-endpoint", offload ? offload.endpoint : "All is decided on the board");
  byId("offload-endpoint").title = offload?.endpoint ?? "";
  const unanswered = offload ? offload.failed + offload.late + offload.given_up : 0;
  const waiting = offload?.spool_waiting ? `${count(offload.spool_waiting)} wait` : "";
  say("offload-counts", offload ? `${count(offload.revised)} answered · ${waiting || (unanswered ? `${count(unanswered)} failed` : bytes(offload.sent_bytes))}` : "\u00a0");
  byId("offload-counts").title = offload ? `${offload.submitted} asked, ${offload.revised} answered, ${offload.failed} failed, ${offload.late} late, ${offload.given_up} given up, ${offload.withheld} withheld, ${offload.declined} declined; ${bytes(offload.sent_bytes)} sent` : "";
}

function renderSpeed(status) {
  const { stages_ms: stages } = status;
  say("fps", status.fps.toFixed(1));
  say("age", stages ? milliseconds(stages.age) : "–");
  say("age-unit", stages ? "ms" : "");
  plot(byId("fps-graph"), page.history.fps, null, 24);
  plot(byId("age-graph"), page.history.age_ms, null, 24, page.history.infer_ms);
  const rows = byId("stages").children;
  ["capture", "prepare", "infer", "decode"].forEach((name, place) => {
    const ms = stages ? stages[name] : 0;
    const [, bar, value] = rows[place].children;
    bar.firstElementChild.style.transform = stages ? `scaleX(${Math.min(1, ms / Math.max(0.001, stages.age))})` : "scaleX(0)";
    value.textContent = stages ? `${milliseconds(ms)} ms` : "–";
  });
}

function renderHeat({ temperature_c: heat, limit_c: limit }) {
  byId("heat").dataset.hot = heat === null ? "none" : heat >= limit ? "yes" : "no";
  say("temperature", heat === null ? "–" : heat.toFixed(1));
  say("temperature-limit", heat === null ? "no sensor" : `limit ${limit.toFixed(0)} °C`);
  byId("heat-bar").style.transform = `scaleX(${heat === null ? 0 : Math.min(1, Math.max(0, (heat - 20) / (limit - 20)))})`;
}

function renderBoard({ board, governor, events_lost: eventsLost, seconds, at }, source) {
  say("camera", source.trouble ? `${source.state}: ${source.trouble}` : `${STATES[source.state] ?? source.state}, ${source.fps.toFixed(1)} fps`);
  byId("camera").title = source.trouble;
  byId("governor").title = governor?.words ?? "";
  byId("camera").classList.toggle("trouble", source.state === "lost" || source.state === "stalled");
  say("frames", count(source.frames));
  say("dropped", count(source.dropped));
  say("skipped", count(source.skipped));
  say("paced", count(source.paced));
  say("cpu", board.cpu_share === null ? "–" : `${Math.round(board.cpu_share * 100)}% of a core`);
  say("memory", bytes(board.memory_bytes));
  const power = [board.watts === null ? "" : `${board.watts.toFixed(1)} W`, board.battery === null ? "" : `battery ${Math.round(board.battery * 100)}%`];
  show("power-row", power.some(Boolean));
  say("power", power.filter(Boolean).join(", "));
  say("governor", !governor ? "off" : governor.rung === 0 ? "full speed" : `${governor.words || "holding back"} (${governor.rung} of ${governor.rungs})`);
  show("throttled-row", board.throttled.length > 0);
  say("throttled", board.throttled.join(", "));
  show("lost-row", eventsLost > 0);
  say("lost", count(eventsLost));
  const wrong = Date.parse(at) - Date.now();
  show("clock-row", Math.abs(wrong) > 5000);
  say("clock", `${ago(Math.abs(wrong))} ${wrong > 0 ? "ahead of" : "behind"} yours`);
  say("uptime", ago(seconds * 1000));
}

/** Draw values of the last seconds, the newest on the right, and those that are a part of them as a darker area. */
function plot(graph, values, most, height, part = []) {
  const top = most ?? Math.max(1e-9, ...values.map((value) => value ?? 0)) * 1.15;
  const runs = runsOf(values, top, height);
  graph.querySelector(".line").setAttribute("d", runs.map(lineThrough).join(""));
  graph.querySelector(".area").setAttribute("d", [...runs, ...runsOf(part, top, height)].map((run) => areaUnder(run, height)).join(""));
}

/** Points of values that follow each other; a null is a gap. */
function runsOf(values, top, height) {
  const runs = [[]];
  values.forEach((value, place) => {
    if (value === null) runs.push([]);
    else runs.at(-1).push([place + SECONDS - values.length, (height - 1 - (height - 2) * Math.min(1, value / top)).toFixed(1)]);
  });
  return runs.filter((run) => run.length);
}

const lineThrough = (run) => `M${run.map((point) => point.join(" ")).join("L")}${run.length > 1 ? "" : "h.01"}`;
const areaUnder = (run, height) => `M${run[0][0]} ${height}L${run.map((point) => point.join(" ")).join("L")}L${run.at(-1)[0]} ${height}Z`;

// Moments

function setMoments(moments) {
  page.moments = [];
  byId("moments").replaceChildren();
  [...moments].sort((one, other) => one.id - other.id).forEach(addMoment);
  show("no-moments", moments.length === 0);
}

function addMoment(moment) {
  if (page.moments.includes(moment.id)) return;
  if (moment.kind === "answer") page.answeredMs = now();
  const list = byId("moments");
  page.moments = [moment.id, ...page.moments].slice(0, MOMENTS);
  list.prepend(momentItem(moment));
  while (list.children.length > MOMENTS) list.lastElementChild.remove();
  show("no-moments", false);
}

function momentItem(moment) {
  const item = element("li");
  item.dataset.kind = moment.kind;
  const words = element("div");
  const text = element("p", "text", moment.text);
  text.title = moment.text;
  const source = page.status.sources.length > 1 && page.status.sources[moment.source - 1];
  const fine = element("p", "fine", source ? ` · ${source.name}` : "");
  const time = element("time", "", clock(moment.at));
  time.dateTime = moment.at;
  fine.prepend(time);
  words.append(text, fine);
  item.append(words);
  if (moment.picture) item.append(Object.assign(element("img"), { src: `/moments/${moment.id}.jpg`, alt: "", loading: "lazy", width: 96, height: 54 }));
  return item;
}

/** A new element; `text` stays text. */
function element(tag, className = "", text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

// Controls

const turning = { dirty: new Set(), timers: {}, said: {} };

/** Say something beside a control; a refusal stays until the next try. */
function sayBack(name, text, tone = "") {
  turning.said[name] = text ? { text, tone } : null;
  renderSaid(name, "");
}

function renderSaid(name, otherwise) {
  const said = turning.said[name];
  const element = byId(`${name}-said`);
  say(element.id, said ? said.text : otherwise);
  element.dataset.tone = said ? said.tone : "";
}

function renderControls() {
  const { status, session } = page;
  const { controls } = status;
  const open = document.body.dataset.link === "live";
  const allowed = open && session.controllable;
  const closed = !open ? "Not connected." : session.controllable ? "" : "The controls of this page are off.";
  byId("pause").disabled = !allowed;
  byId("pause").toggleAttribute("data-paused", controls.paused);
  say("pause-text", controls.paused ? "Go on" : "Pause");
  say("pause-state", controls.paused ? "Paused" : "Running");
  renderSaid("pause", closed || (controls.paused ? `Paused${whoseWords(pausedBy(status))}.` : "Pausing is for everybody."));
  for (const name of ["threshold", "score_threshold"]) {
    const value = controls[name];
    const inputs = [byId(name), byId(`${name}-slider`)];
    for (const input of inputs) {
      input.disabled = !allowed || value === null;
      if (!turning.dirty.has(name)) input.value = value === null ? (input.type === "range" ? "0" : "") : fraction(value);
    }
    renderSaid(name, (value === null ? NOTHING_TO_SET : HINTS)[name]);
  }
  byId("gate").disabled = !allowed || controls.gate === null;
  if (!turning.dirty.has("gate")) byId("gate").checked = controls.gate === true;
  renderSaid("gate", (controls.gate === null ? NOTHING_TO_SET : HINTS).gate);
}

/** Ask the board to change something, and say beside `control` what it answers. */
async function turn(control, name, value) {
  sayBack(control, "Setting …");
  try {
    const answer = await fetch("/controls", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ [name]: value }),
      signal: AbortSignal.timeout(5000),
    });
    const reply = await answer.json().catch(() => ({}));
    if (answer.ok) page.status.controls = reply;
    sayBack(control, answer.ok ? "Set." : reply.error ?? `The board answered ${answer.status}.`, answer.ok ? "done" : "refused");
    if (answer.ok) setTimeout(() => turning.said[control]?.tone === "done" && (sayBack(control, ""), renderControls()), 2500);
  } catch {
    sayBack(control, "The board did not answer.", "refused");
  }
  turning.dirty.delete(control);
  renderControls();
}

/** Ask soon: a key held down on a slider is one change. */
function turnSoon(name) {
  const text = byId(name).value.trim().replace(",", ".");
  const value = Number(text);
  clearTimeout(turning.timers[name]);
  if (text === "" || !(value >= 0 && value <= 1)) {
    turning.dirty.delete(name);
    sayBack(name, "A number from 0 to 1, please.", "refused");
    renderControls();
  } else turning.timers[name] = setTimeout(() => turn(name, name, value), 300);
}

function wireControls() {
  byId("pause").addEventListener("click", togglePause);
  for (const name of ["threshold", "score_threshold"]) {
    const [number, slider] = [byId(name), byId(`${name}-slider`)];
    for (const [changed, other] of [[number, slider], [slider, number]]) {
      changed.addEventListener("input", () => {
        turning.dirty.add(name);
        other.value = changed === slider ? fraction(Number(slider.value)) : changed.value;
      });
      changed.addEventListener("change", () => turnSoon(name));
    }
  }
  byId("gate").addEventListener("change", () => {
    turning.dirty.add("gate");
    turn("gate", "gate", byId("gate").checked);
  });
}

function togglePause() {
  if (!byId("pause").disabled) turn("pause", "paused", !page.status.controls.paused);
}

// Keys, theme, tabs that nobody sees

function onKey(event) {
  const typing = event.target instanceof Element && event.target.closest("input:not([type=range]):not([type=checkbox]), dialog");
  if (event.ctrlKey || event.metaKey || event.altKey || typing || !byId("shortcuts").checked) return;
  const act = { p: togglePause, t: toggleTheme, f: toggleFull, "?": () => byId("keys").showModal() }[event.key.toLowerCase()];
  if (act) act();
  else if (/^[1-9]$/.test(event.key)) choose(Number(event.key));
  else return;
  event.preventDefault();
}

function onTabKey(event) {
  const last = page.status.sources.length;
  const to = { ArrowRight: (page.source % last) + 1, ArrowLeft: ((page.source + last - 2) % last) + 1, Home: 1, End: last }[event.key];
  if (!to) return;
  event.preventDefault();
  choose(to);
  byId("tabs").children[to - 1].focus();
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else byId("stage").requestFullscreen?.().catch(() => {});
}

/** What a browser keeps; some keep nothing, and say so by throwing. */
function kept(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function applyTheme(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}

function toggleTheme() {
  const dark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark")) === "dark";
  applyTheme(dark ? "light" : "dark");
  kept("edge-theme", dark ? "light" : "dark");
}

/** An unwatched tab costs the board nothing. */
function onVisibility() {
  if (document.hidden) {
    disconnect();
    picture.watching?.abort();
    return;
  }
  page.resumedMs = now();
  link.tries = 0;
  connect();
  watch();
  tick();
}

function openPage() {
  page.source = Math.max(1, Number.parseInt(location.hash.slice(1), 10) || 1);
  byId("theme").addEventListener("click", toggleTheme);
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("full").addEventListener("click", toggleFull);
  byId("retry").addEventListener("click", retry);
  byId("tabs").addEventListener("keydown", onTabKey);
  byId("shortcuts").checked = kept("edge-shortcuts") !== "off";
  byId("shortcuts").addEventListener("change", (event) => kept("edge-shortcuts", event.target.checked ? "on" : "off"));
  show("full", document.fullscreenEnabled);
  wireControls();
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", onVisibility);
  setInterval(() => document.hidden || tick(), 250);
  onVisibility();
}

/** Say why the form is shown again: the answer to a wrong token is the form, where the token was sent to. */
function openDoor() {
  const { responseStatus } = performance.getEntriesByType("navigation")[0] ?? {};
  const inAddress = new URLSearchParams(location.search).has("token");
  if (responseStatus === 429) say("refused", "Too many wrong tokens. Wait a minute.");
  byId("refused").classList.toggle("shown", inAddress || responseStatus === 429 || location.pathname === "/login");
  if (inAddress) history.replaceState(null, "", "/");
}

applyTheme(kept("edge-theme"));
document.addEventListener("DOMContentLoaded", () => {
  if (byId("stage")) openPage();
  else openDoor();
});
