// What the board has told, and a clock to say how old that is.

/**
 * @typedef {{number: number, name: string, live: boolean, state: string, trouble: string, quiet_s: ?number, fps: number, frames: number,
 *   dropped: number, skipped: number, paced: number, result: ?Answered, cloud: ?Answered}} Source
 * @typedef {{seq: number, caption: string, label: ?string, confidence: number, action: string, served_by: string}} Answered
 * @typedef {{paused: boolean, paused_by: ?string, threshold: ?number, score_threshold: ?number, gate: ?boolean}} Controls
 * @typedef {{id: number, at: string, kind: string, source: ?number, text: string, picture: boolean, more: number}} Moment
 */

export const STATES = { starting: "starting", open: "open", stalled: "stalled", lost: "lost", ended: "ended" };
export const later = (/** @type {number} */ ms) => new Promise((done) => setTimeout(done, ms));
const passed = { ms: 1e6, steadyMs: performance.now(), wallMs: Date.now() };

/**
 * Milliseconds that only ever grow. The steady clock may stand still while the machine sleeps, and old numbers would look
 * new; the wall clock may be set back. So the steady one counts, and the wall clock where it is more than a second ahead.
 */
export function now() {
  const [steadyMs, wallMs] = [performance.now(), Date.now()];
  const [steady, wall] = [steadyMs - passed.steadyMs, wallMs - passed.wallMs];
  Object.assign(passed, { ms: passed.ms + (wall > steady + 1000 ? wall : steady), steadyMs, wallMs });
  return passed.ms;
}

export const page = { status: null, session: null, history: null, source: 1, answeredMs: 0, resumedMs: now() };

/** @returns {?Source} */
export const currentSource = () => page.status?.sources[page.source - 1] ?? null;

export const pausedBy = (status) => status.controls.paused_by ?? null;
