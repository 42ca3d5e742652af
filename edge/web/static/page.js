// The live page: what its parts tell each other, the keys, and tabs that nobody sees, which ask the board for nothing.

import { now, page } from "./board.js";
import { disconnect, listen, reconnect, retry, tickLink } from "./connection.js";
import { renderControls, togglePause, wireControls } from "./controls.js";
import { addMoment, setMoments } from "./moments.js";
import { renderOffload, renderPanels, tickVerdict } from "./panels.js";
import { setRatio, stopWatching, tickPicture, toggleFull, watch, watchAnew, watchAnother } from "./picture.js";
import { kept, toggleTheme } from "./theme.js";
import { byId, show } from "./words.js";

function render() {
  delete document.body.dataset.blank;
  renderPanels();
  renderControls();
  tick();
}

/** What changes with time, even if nothing comes. */
function tick() {
  const ms = now();
  if (tickLink(ms) && page.status) {
    renderOffload(page.status.offload);
    renderControls();
  }
  tickPicture(ms);
  tickVerdict(ms);
}

/** Watch another source. */
function choose(number) {
  if (number === page.source || !page.status?.sources[number - 1]) return;
  page.source = number;
  history.replaceState(null, "", `#${number}`);
  watchAnother();
  render();
  byId("tabs").children[number - 1].scrollIntoView({ block: "nearest", inline: "nearest" });
}

function onTab(event) {
  const place = [...byId("tabs").children].indexOf(event.target.closest("button"));
  if (place >= 0) choose(place + 1);
}

function onTabKey(event) {
  const last = page.status.sources.length;
  const to = { ArrowRight: (page.source % last) + 1, ArrowLeft: ((page.source + last - 2) % last) + 1, Home: 1, End: last }[event.key];
  if (!to) return;
  event.preventDefault();
  choose(to);
  byId("tabs").children[to - 1].focus();
}

function onKey(event) {
  const typing = event.target instanceof Element && event.target.closest("input:not([type=range]):not([type=checkbox]), dialog");
  if (event.ctrlKey || event.metaKey || event.altKey || typing || !byId("shortcuts").checked) return;
  const act = { p: togglePause, t: toggleTheme, f: toggleFull, "?": () => byId("keys").showModal() }[event.key.toLowerCase()];
  if (act) act();
  else if (/^[1-9]$/.test(event.key)) choose(Number(event.key));
  else return;
  event.preventDefault();
}

/** An unwatched tab costs the board nothing. */
function onVisibility() {
  if (document.hidden) {
    disconnect();
    stopWatching();
    return;
  }
  reconnect();
  watch();
  tick();
}

function openPage() {
  page.source = Math.max(1, Number.parseInt(location.hash.slice(1), 10) || 1);
  byId("theme").addEventListener("click", toggleTheme);
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("full").addEventListener("click", toggleFull);
  byId("retry").addEventListener("click", retry);
  byId("tabs").addEventListener("click", onTab);
  byId("tabs").addEventListener("keydown", onTabKey);
  byId("shortcuts").checked = kept("edge-shortcuts") !== "off";
  byId("shortcuts").addEventListener("change", (event) => kept("edge-shortcuts", event.target.checked ? "on" : "off"));
  show("full", document.fullscreenEnabled);
  wireControls();
  setRatio(Number(kept("edge-ratio")));
  listen({ status: render, moments: setMoments, moment: addMoment, back: watchAnew });
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", onVisibility);
  setInterval(() => document.hidden || tick(), 250);
  onVisibility();
}

openPage();
