// The door: where one signs in.

import { byId, say } from "./words.js";

/** Say why the form is shown again: the answer to a wrong token is the form, where the token was sent to. */
function openDoor() {
  const { responseStatus } = performance.getEntriesByType("navigation")[0] ?? {};
  const inAddress = new URLSearchParams(location.search).has("token");
  if (responseStatus === 429) say("refused", "Too many wrong tokens. Wait a minute.");
  byId("refused").classList.toggle("shown", inAddress || responseStatus === 429 || location.pathname === "/login");
  if (inAddress) history.replaceState(null, "", "/");
}

openDoor();
