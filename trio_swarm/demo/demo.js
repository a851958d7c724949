// The board: a plain EventSource on the hub's public stream, drawn once a frame of the screen.
//
// Every event is a whole match, so an event that never arrives does no harm, and of many that arrive between two frames of the
// screen only the newest of each match is drawn. Nothing here grows: one entry a match on the board, `TICKER` lines of news,
// `WINDOW` seconds of counts, `SAMPLES` latencies; flashes are animations that replace each other, not timers.

const STREAM = "/v1/hub/demo/events";
const GONE_MS = 15_000; // a match this much older than the newest event has left the feed
const QUIET_MS = 1_000; // after opening, what arrives is history: it is drawn, and neither counted nor flashed
const SILENT_MS = 10_000; // a live board that says nothing for so long is not live
const RETRY_MS = 3_000; // where EventSource itself gives up, as it does when the answer is an error
const TICKER = 8;
const WINDOW = 40;
const SAMPLES = 60;

const element = (id) => document.getElementById(id);
const board = element("board");
const still = matchMedia("(prefers-reduced-motion: reduce)");

const rows = new Map(); // match -> what is drawn of it
const fresh = new Map(); // match -> its newest frame, not drawn yet
const flashes = new WeakMap(); // element -> the animation it shows
let newest = 0; // `at` of the newest event
let scheduled = false;

// -- drawing ----------------------------------------------------------------------------------------------------------------

function copy(template) {
  return element(template).content.firstElementChild.cloneNode(true);
}

function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function play(node, keyframes, options) {
  flashes.get(node)?.cancel();
  flashes.set(node, node.animate(keyframes, options));
}

function flash(node, colour, ms) {
  if (still.matches) return;
  const tint = getComputedStyle(document.documentElement).getPropertyValue(colour);
  play(node, [{ backgroundColor: `color-mix(in srgb, ${tint} 55%, transparent)` }, {}], { duration: ms, easing: "ease-out" });
}

function hue(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 360;
  return sum;
}

function initials(name) {
  const words = name.split(" ").filter((word) => /^\p{L}/u.test(word));
  return (words.length > 1 ? words[0][0] + words[1][0] : name.slice(0, 2)).toUpperCase();
}

function competition(name) {
  for (const section of board.querySelectorAll(".competition")) {
    if (section.dataset.name === name) return section;
  }
  const section = copy("competition-template");
  section.dataset.name = name;
  const title = section.querySelector("h2");
  title.textContent = name;
  title.id = `competition-${hue(name)}-${board.childElementCount}`;
  section.setAttribute("aria-labelledby", title.id);
  board.append(section);
  return section;
}

function addRow(frame) {
  const node = copy("match-template");
  const row = { node, frame: null, sides: [], odds: {}, minute: node.querySelector(".minute") };
  row.progress = node.querySelector(".progress i");
  row.prices = node.querySelector(".odds");
  ["home", "away"].forEach((side) => {
    const at = node.querySelector(`.side.${side}`);
    const crest = at.querySelector(".crest");
    crest.textContent = initials(frame[side]);
    crest.style.setProperty("--hue", hue(frame[side]));
    at.querySelector(".team").textContent = frame[side];
    const [score, cards, goal] = [".score", ".cards", ".goal"].map((part) => at.querySelector(part));
    row.sides.push({ at, score, cards, goal, shown: "" });
  });
  for (const price of node.querySelectorAll(".odds li")) {
    row.odds[price.dataset.outcome] = { at: price, value: price.querySelector("b"), last: null };
  }
  node.dataset.match = frame.match;
  competition(frame.competition).querySelector(".matches").append(node);
  rows.set(frame.match, row);
  return row;
}

function pile(colour, count) {
  const cards = [];
  for (let i = 0; i < (count > 3 ? 1 : count); i += 1) {
    const card = document.createElement("i");
    card.className = `card ${colour}`;
    cards.push(card);
  }
  return count > 3 ? [...cards, `×${count}`] : cards;
}

function drawSide(side, index, frame, lively) {
  const score = String(frame.score[index]);
  if (lively && frame.score[index] > Number(side.score.textContent)) {
    flash(side.score, "--accent", 5000);
    play(side.goal, [{ opacity: 1 }, { opacity: 1, offset: 0.8 }, { opacity: still.matches ? 1 : 0 }], 5000);
  }
  text(side.score, frame.phase === "soon" ? "" : score);
  side.at.classList.toggle("leads", frame.score[index] > frame.score[1 - index]);
  const [yellow, red] = [frame.yellow[index], frame.red[index]];
  if (side.shown === `${yellow} ${red}`) return;
  side.shown = `${yellow} ${red}`;
  side.cards.replaceChildren(...pile("red", red), ...pile("yellow", yellow));
  side.cards.ariaLabel = [red && `${red} red`, yellow && `${yellow} yellow`].filter(Boolean).join(", ");
}

function drawOdds(row, odds, lively) {
  row.prices.toggleAttribute("data-suspended", odds === null);
  for (const [outcome, price] of Object.entries(row.odds)) {
    const value = odds?.[outcome] ?? null;
    text(price.value, value === null ? "–" : value.toFixed(value < 10 ? 2 : value < 20 ? 1 : 0));
    if (value === null) {
      delete price.at.dataset.move;
    } else if (price.last !== null && value !== price.last) {
      const up = value > price.last;
      price.at.dataset.move = up ? "up" : "down";
      if (lively) flash(price.at, up ? "--up" : "--down", 1200);
    }
    price.last = value ?? price.last;
  }
}

function drawMatch(frame, lively) {
  const known = rows.get(frame.match);
  const row = known ?? addRow(frame);
  lively = lively && known !== undefined;
  row.node.dataset.phase = frame.phase;
  text(row.minute, frame.minute || "Soon");
  row.progress.style.width = `${(frame.clock / 54).toFixed(1)}%`;
  row.sides.forEach((side, index) => drawSide(side, index, frame, lively));
  drawOdds(row, frame.odds, lively);
  row.frame = frame;
}

function draw() {
  scheduled = false;
  const lively = performance.now() > history;
  for (const frame of fresh.values()) drawMatch(frame, lively);
  fresh.clear();
  for (const [match, row] of rows) {
    if (row.frame.at < newest - GONE_MS) {
      row.node.remove();
      rows.delete(match);
    }
  }
  element("empty").hidden = rows.size > 0;
  let playing = 0;
  let goals = 0;
  for (const { frame } of rows.values()) {
    playing += frame.phase === "first" || frame.phase === "second";
    goals += frame.score[0] + frame.score[1];
  }
  text(element("playing"), String(playing));
  text(element("goals"), String(goals));
}

// -- the news ---------------------------------------------------------------------------------------------------------------

const TOLD = { goal: "Goal", red: "Red card", yellow: "Yellow card", "full time": "Full time" };

function tell(frame) {
  const { what, side, minute } = frame.news;
  if (!(what in TOLD)) return;
  const item = document.createElement("li");
  const icon = document.createElement("div");
  icon.className = "icon";
  icon.setAttribute("aria-hidden", "true");
  const sign = document.createElement("div");
  sign.className = what === "goal" || what === "full time" ? "ball" : `card ${what}`;
  sign.textContent = what === "goal" ? "●" : what === "full time" ? "■" : "";
  icon.append(sign);
  const line = document.createElement("strong");
  line.textContent = side ? `${minute}′ ${TOLD[what]}, ${frame[side]}` : TOLD[what];
  const score = document.createElement("span");
  score.textContent = `${frame.home} ${frame.score[0]}–${frame.score[1]} ${frame.away}`;
  item.append(icon, line, score);
  const ticker = element("ticker");
  ticker.prepend(item);
  while (ticker.childElementCount > TICKER) ticker.lastElementChild.remove();
}

// -- the figures ------------------------------------------------------------------------------------------------------------

const counts = new Array(WINDOW).fill(0); // events in each of the last seconds, the newest last
const latencies = [];

function note(frame) {
  counts[WINDOW - 1] += 1;
  latencies.push(Date.now() - frame.at);
  if (latencies.length > SAMPLES) latencies.shift();
}

setInterval(() => {
  const lately = counts.slice(-3).reduce((sum, count) => sum + count, 0) / 3;
  text(element("rate"), String(Math.round(lately)));
  const highest = Math.max(8, ...counts);
  const points = counts.map((count, i) => `${(i * 100) / (WINDOW - 1)},${23 - (21 * count) / highest}`);
  element("spark").firstElementChild.setAttribute("points", points.join(" "));
  counts.shift();
  counts.push(0);
  const sorted = latencies.toSorted((a, b) => a - b);
  const median = sorted[sorted.length >> 1];
  if (performance.now() - heard > SILENT_MS && element("state").dataset.state === "live") show("silent");
  text(element("latency"), median === undefined || median < 0 ? "–" : String(median)); // below zero: the clocks differ
}, 1000);

// -- the stream -------------------------------------------------------------------------------------------------------------

const STATES = {
  connecting: ["connecting", "Connecting"],
  reconnecting: ["connecting", "Reconnecting"],
  live: ["live", "Live"],
  silent: ["connecting", "Nothing new"],
  waiting: ["connecting", "Feed connecting"],
  down: ["down", "Feed down"],
};
let history = Number.POSITIVE_INFINITY; // until then, what arrives is what was kept
let heard = 0; // when the last event came
let last = "0-0";

function show(state) {
  const [style, words] = STATES[state];
  element("state").dataset.state = style;
  text(element("state-text"), words);
}

function receive(event) {
  let frame;
  try {
    frame = JSON.parse(event.data);
  } catch {
    return; // one event that cannot be read is one event not drawn
  }
  last = event.lastEventId;
  heard = performance.now();
  if (element("state").dataset.state !== "live" && heard > history) show("live");
  const before = fresh.get(frame.match) ?? rows.get(frame.match)?.frame;
  const news = frame.news;
  if (before && news && (news.what !== before.news?.what || news.minute !== before.news?.minute || news.side !== before.news?.side)) {
    tell(frame);
  }
  newest = Math.max(newest, frame.at);
  fresh.set(frame.match, frame);
  if (performance.now() > history) note(frame);
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(draw);
  }
}

function connect() {
  const source = new EventSource(`${STREAM}?since=${encodeURIComponent(last)}`);
  source.onopen = () => {
    heard = performance.now();
    history = heard + QUIET_MS;
    show("live");
  };
  source.onmessage = receive;
  source.addEventListener("status", (event) => {
    const { state } = JSON.parse(event.data);
    show(state === "connecting" ? "waiting" : state);
  });
  source.onerror = () => {
    history = Number.POSITIVE_INFINITY;
    show("reconnecting");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS);
  };
}

connect();
