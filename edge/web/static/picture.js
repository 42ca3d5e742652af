// The picture: one is asked for after the other, and what is not new does not look so.

import { currentSource, later, now, page, pausedBy } from "./board.js";
import { isGone } from "./connection.js";
import { kept } from "./theme.js";
import { ago, byId, clockAt, say, show, whoseWords } from "./words.js";

const STILL_MS = 2000; // without a new picture, unless they always come as seldom
const OLD_MS = 3000; // what a picture may be older than that

const picture = { seq: -1, askedMs: now(), shownMs: 0, takenMs: 0, times: [], watching: null };

/** Show one picture after the other; there is one such loop, and the newest ends the one before. */
export async function watch() {
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

/** From the first picture on: a board that was started again counts from 0. */
export function watchAnew() {
  picture.seq = -1;
  watch();
}

/** Nothing is left of the source before. */
export function watchAnother() {
  Object.assign(picture, { seq: -1, askedMs: now(), shownMs: 0, takenMs: 0, times: [] });
  const canvas = byId("picture");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  watch();
}

export function stopWatching() {
  picture.watching?.abort();
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
    setRatio(bitmap.width / bitmap.height);
    kept("edge-ratio", String(bitmap.width / bitmap.height));
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

/** The box has the picture's shape; the next visit begins with it, so that nothing jumps when the picture comes. */
export function setRatio(ratio) {
  if (ratio > 0.1 && ratio < 10) byId("frame").style.setProperty("--ratio", ratio.toFixed(4));
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

export function tickPicture(ms) {
  const gone = isGone(ms);
  const none = picture.shownMs === 0;
  const quiet = Math.max(ms - picture.shownMs - patience(), ms - picture.takenMs - patience() - OLD_MS) > 0;
  const old = !none && (gone || quiet);
  const told = old || (none && (!page.status || ms - picture.askedMs > STILL_MS));
  byId("stage").dataset.picture = none ? "none" : old ? "old" : "live";
  show("note", told);
  if (told) {
    const paused = page.status?.controls.paused && !gone;
    const title = none ? (page.status || gone ? "No picture yet" : "Connecting …") : gone ? "Old picture" : paused ? "Paused" : `No new picture for ${ago(ms - picture.takenMs)}`;
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

export function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else byId("stage").requestFullscreen?.().catch(() => {});
}
