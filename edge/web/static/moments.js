// The last things worth a look, the newest first.

import { now, page } from "./board.js";
import { byId, clock, count, element, show } from "./words.js";

const MOMENTS = 30;

/** Their numbers. */
const shown = [];

export function setMoments(moments) {
  shown.splice(0);
  byId("moments").replaceChildren();
  [...moments].sort((one, other) => one.id - other.id).forEach(addMoment);
  show("no-moments", moments.length === 0);
}

export function addMoment(moment) {
  if (shown.includes(moment.id)) return;
  if (moment.kind === "answer") page.answeredMs = now();
  const list = byId("moments");
  shown.unshift(moment.id);
  shown.splice(MOMENTS);
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
  const more = moment.more ? ` · ${count(moment.more)} more before` : "";
  const fine = element("p", "fine", more + (source ? ` · ${source.name}` : ""));
  const time = element("time", "", clock(moment.at));
  time.dateTime = moment.at;
  fine.prepend(time);
  words.append(text, fine);
  item.append(words);
  if (moment.picture) item.append(Object.assign(element("img"), { src: `/moments/${moment.id}.jpg`, alt: "", loading: "lazy", width: 96, height: 54 }));
  return item;
}
