// Words and numbers, and the elements that they stand in. What comes from the board is only ever written as text.

import { now } from "./board.js";

export const byId = (/** @type {string} */ id) => document.getElementById(id);

/** Write a text, if it is another one. */
export function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

export function show(id, shown) {
  byId(id).hidden = !shown;
}

export function announce(text) {
  byId("announce").textContent = text;
}

/** A new element; `text` stays text. */
export function element(tag, className = "", text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

export function ago(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return `${s}\u00a0s`;
  return s < 7200 ? `${Math.floor(s / 60)}\u00a0min` : `${Math.floor(s / 3600)}\u00a0h`;
}

export const clock = (when) => new Date(when).toLocaleTimeString("en-GB");

/** What the clock showed at a time of `now`. */
export const clockAt = (ms) => clock(Date.now() - (now() - ms));

export const count = (n) => n.toLocaleString("en-US").replaceAll(",", "\u202f");
export const milliseconds = (ms) => (ms < 10 ? ms.toFixed(1) : Math.round(ms).toString());
export const fraction = (value) => (Number.isInteger(value * 100) ? value.toFixed(2) : String(Number(value.toFixed(4))));
export const whoseWords = (who) => ({ web: " from a live page", mqtt: " over MQTT" })[who] ?? "";

export function bytes(n) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (n >= size) return `${(n / size).toFixed(n < 10 * size ? 1 : 0)} ${unit}`;
  return `${n} B`;
}

/** A classifier's caption ends in its score, which stands beside it. */
export function withoutScore(result) {
  const { caption, label } = result;
  return label && caption.startsWith(`${label} `) && /^\d+%$/.test(caption.slice(label.length + 1)) ? label : caption;
}
