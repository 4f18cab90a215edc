// Keeps a page up to date: an event of the stream, or the clock, has it read again and morphed into what is shown.
import { Idiomorph } from "./vendor/idiomorph.esm.js";

const DEBOUNCE_MS = 250;
const AT_MOST_EVERY_MS = 1000;
const SHARE = 5; // a page that is slow to make is read for at most a fifth of the time
const RETRY_MOST_MS = 30000;
const PATIENCE_MS = 20000; // after which a server that keeps silent counts as away
const WORDS = { live: "Live", polling: "Polling", offline: "Offline", still: "Not live" };
const SHAPES = { live: "full", polling: "half", offline: "cross", still: "ring" };

const main = () => document.getElementById("main");
const seconds = () => Number(main().dataset.poll || 0);
let stream = null, streaming = false, faults = 0;
let timer = 0, lastRead = 0, took = 0, reading = false, again = false, changed = () => {};

export function keepLive(onChange) {
  changed = onChange;
  if (!seconds()) return show("still");
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : wake()));
  window.addEventListener("online", () => readSoon(0));
  window.addEventListener("offline", () => show("offline"));
  document.addEventListener("brain:changed", () => readSoon(0));
  wake();
}

// A hidden tab holds no connection: browsers allow six to a server, and other tabs need them.
function rest() {
  stream?.close();
  stream = null;
  clearTimeout(timer);
}

function wake() {
  listen();
  readSoon(Math.max(0, seconds() * 1000 - (Date.now() - (lastRead || Date.now()))));
}

function listen() {
  if (stream) return;
  const cluster = main().dataset.cluster;
  stream = new EventSource("/api/events/stream" + (cluster ? `?cluster_id=${encodeURIComponent(cluster)}` : ""));
  stream.onopen = () => { streaming = true; if (!faults) show("live"); };
  stream.onerror = () => {
    streaming = false;
    if (!faults) show("polling");
    // The browser tries again by itself, except after an answer that is no stream.
    if (stream?.readyState === EventSource.CLOSED) { stream = null; setTimeout(() => document.hidden || listen(), RETRY_MOST_MS); }
  };
  stream.onmessage = (event) => { document.dispatchEvent(new CustomEvent("brain:event", { detail: event.data })); readSoon(DEBOUNCE_MS); };
  stream.addEventListener("reset", () => readSoon(0));
}

function readSoon(after) {
  const wait = Math.max(after, lastRead + Math.max(AT_MOST_EVERY_MS, SHARE * took) - Date.now(), 0);
  clearTimeout(timer);
  timer = setTimeout(read, wait);
}

async function read() {
  if (document.hidden) return;
  if (reading) { again = true; return; } // what just happened may not be in the answer that is on its way
  reading = true;
  const begin = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.redirected && new URL(answer.url).pathname === "/login") return location.assign(answer.url);
    if (answer.status >= 500 || answer.status === 429) throw new Error(String(answer.status));
    morph(await answer.text());
    faults = 0;
    show(streaming ? "live" : "polling");
  } catch {
    faults += 1;
    show("offline");
  } finally {
    reading = false;
    lastRead = Date.now();
    took = lastRead - begin;
  }
  const pause = seconds() * 1000 * (faults ? Math.min(2 ** faults, 6) : 1);
  if (seconds()) readSoon(again ? 0 : Math.min(pause, RETRY_MOST_MS));
  again = false;
}

function morph(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("main");
  if (!fresh) return;
  Idiomorph.morph(main(), fresh, {
    // Of a button it would keep the words and change what they do.
    ignoreActiveValue: Boolean(document.activeElement?.matches("input, textarea, select")),
    callbacks: {
      // What scripts drew, and a form that somebody is filling in, stay as they are.
      beforeNodeMorphed: (node) => !node.dataset || !("keep" in node.dataset || "editing" in node.dataset),
      beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS") && !(name === "aria-busy"),
    },
  });
  changed();
}

function show(state) {
  const place = document.getElementById("live");
  if (place.dataset.state === state && place.dataset.shown) return;
  place.dataset.state = state;
  place.dataset.shown = "yes";
  place.querySelector("span").textContent = WORDS[state];
  place.querySelector("use").setAttribute("href", `#dot-${SHAPES[state]}`);
}
