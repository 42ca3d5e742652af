// The controls: what is turned here holds for everybody, and what the board says to it stands beside it.

import { page, pausedBy } from "./board.js";
import { isLive } from "./connection.js";
import { byId, fraction, say, whoseWords } from "./words.js";

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

export function renderControls() {
  const { status, session } = page;
  const { controls } = status;
  const open = isLive();
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

export function wireControls() {
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

export function togglePause() {
  if (!byId("pause").disabled) turn("pause", "paused", !page.status.controls.paused);
}
