// The panels: what the last status says, in words, numbers and curves.

import { STATES, currentSource, now, page } from "./board.js";
import { GONE_MS, SECONDS, isLive, sinceHeard } from "./connection.js";
import { ago, byId, bytes, count, element, milliseconds, say, show, withoutScore } from "./words.js";

const ANSWERED_MS = 2500; // how long the light says so
const LIGHTS = { none: "No offload", idle: "Idle", asking: "Asking", answered: "Answered", trying: "Trying again", away: "Endpoint away", unknown: "Not known" };

export function renderPanels() {
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
}

function renderTabs() {
  const { sources } = page.status;
  const tabs = byId("tabs");
  show("tabs", sources.length > 1);
  while (tabs.children.length < sources.length) tabs.append(tab());
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

function tab() {
  const button = element("button");
  button.type = "button";
  button.setAttribute("role", "tab");
  button.setAttribute("aria-controls", "stage");
  button.append(element("span", "dot"), element("span"));
  return button;
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

export function tickVerdict(ms) {
  const source = currentSource();
  if (!source) return;
  const quiet = source.quiet_s === null ? null : source.quiet_s * 1000 + sinceHeard(ms);
  const old = quiet === null || quiet > GONE_MS;
  byId("verdict").toggleAttribute("data-old", old);
  const { result, cloud } = source;
  const served = { accept: "Decided on the board", offload: "Unsure, so the endpoint is asked", skip: "Still scene, nothing new to see" };
  say("decided", !result ? "No result yet" : old ? `Last result ${ago(quiet)} ago` : served[result.action] ?? "");
  show("cloud", cloud !== null);
  if (cloud) say("cloud", `Endpoint on frame ${cloud.seq}: ${withoutScore(cloud)} ${Math.round(cloud.confidence * 100)}%`);
}

function lightOf(offload) {
  if (!offload) return "none";
  if (!isLive()) return "unknown";
  if (offload.breaker !== "closed") return offload.breaker === "open" ? "away" : "trying";
  if (offload.asking > 0) return "asking";
  return now() - page.answeredMs < ANSWERED_MS ? "answered" : "idle";
}

export function renderOffload(offload) {
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
  say("governor", governed(governor));
  show("throttled-row", board.throttled.length > 0);
  say("throttled", board.throttled.join(", "));
  show("lost-row", eventsLost > 0);
  say("lost", count(eventsLost));
  const wrong = Date.parse(at) - Date.now();
  show("clock-row", Math.abs(wrong) > 5000);
  say("clock", `${ago(Math.abs(wrong))} ${wrong > 0 ? "ahead of" : "behind"} yours`);
  say("uptime", ago(seconds * 1000));
}

/** What the governor does: on its highest rung it holds nothing back. */
function governed(governor) {
  if (!governor) return "off";
  if (governor.rung >= governor.rungs) return governor.words || "all frames";
  return `${governor.words || "fewer frames"} (step ${governor.rung} of ${governor.rungs})`;
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
