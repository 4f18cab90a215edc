// The editor of blueprints: the text is judged as one types, faults stand at their lines, and the plan comes before Store.
import { headers, toast } from "./actions.js";

const DEBOUNCE_MS = 350;
const LINE_PX = 20; // as in brain.css
const byId = (id) => document.getElementById(id);
let text, gutter, turn = 0, timer = 0, faults = [];

export function watchEditor() {
  const editor = document.querySelector("[data-editor]");
  if (!editor) return;
  [text, gutter] = [editor.querySelector("textarea"), editor.querySelector(".gutter")];
  text.addEventListener("input", () => { number(); unsettle(); clearTimeout(timer); timer = setTimeout(judge, DEBOUNCE_MS); });
  text.addEventListener("scroll", () => { gutter.scrollTop = text.scrollTop; });
  text.addEventListener("keydown", (event) => {
    if (event.key === "s" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); byId("store-button").click(); }
  });
  byId("rollout").addEventListener("change", label);
  byId("store").addEventListener("submit", (event) => { event.preventDefault(); store(); });
  const before = text.value;
  addEventListener("beforeunload", (event) => { if (text.value !== before && !text.dataset.stored) event.preventDefault(); });
  number();
  judge();
}

// The numbers of the lines, those with a fault marked.
function number() {
  const marked = new Set(faults.map((one) => one.line)), count = text.value.split("\n").length;
  gutter.replaceChildren(...Array.from({ length: count }, (_one, place) => made("span", String(place + 1), marked.has(place + 1) ? "at-fault" : "")));
  gutter.scrollTop = text.scrollTop;
}

function unsettle() {
  turn += 1;
  byId("store").hidden = true;
}

async function ask(path, body) {
  const answer = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body) });
  return { good: answer.ok, told: await answer.json() };
}

async function judge() {
  const mine = ++turn, yaml = text.value;
  if (!yaml.trim()) return verdict("bad", "it is empty", [{ detail: "Write a blueprint, or paste one." }]);
  try {
    const { good, told } = await ask("/api/blueprints/validate", { yaml });
    if (mine !== turn) return;
    if (!good) return verdict("bad", told.title, [{ detail: told.detail }, ...(told.errors || [])]);
    const count = told.errors.length;
    verdict(told.valid ? "ok" : "bad", told.valid ? `no fault: ${told.id} ${told.version}` : `${count} fault${count === 1 ? "" : "s"}`, told.errors);
    if (told.valid) await plan(mine, yaml);
  } catch {
    if (mine === turn) verdict("warn", "not judged: the server does not answer", []);
  }
}

function verdict(tone, words, found) {
  faults = found;
  byId("verdict").className = `end ${tone}-text`;
  byId("verdict").textContent = words;
  text.setAttribute("aria-invalid", String(tone === "bad"));
  byId("faults").hidden = !found.length;
  byId("faults").querySelector("ol").replaceChildren(...found.map(faultLine));
  if (tone !== "ok") byId("plan-body").replaceChildren(made("p", "What storing it would change is shown here, as soon as it has no fault.", "muted")), byId("plan-cost").textContent = "";
  number();
}

function faultLine(one) {
  const item = made("li", "", "");
  if (one.line) {
    const button = made("button", `${one.line}:${one.column}`, "quiet-link mono");
    button.type = "button";
    button.title = `Go to line ${one.line}, column ${one.column}`;
    button.onclick = () => go(one.line, one.column);
    item.append(button);
  }
  item.append(made("span", one.detail, ""));
  return item;
}

function go(line, column) {
  const lines = text.value.split("\n"), start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
  text.focus();
  text.setSelectionRange(start + column - 1, start + lines[line - 1].length);
  text.scrollTop = Math.max(0, (line - 6) * LINE_PX);
}

// --- the plan ------------------------------------------------------------------------------------------------------

async function plan(mine, yaml) {
  const { good, told } = await ask("/api/plan", { documents: [yaml] });
  if (mine !== turn) return;
  if (!good) return byId("plan-body").replaceChildren(made("p", told.detail || told.title, "bad-text"));
  const change = told.changes[0], moves = change.clusters.filter((one) => one.action !== "unchanged");
  byId("plan-body").replaceChildren(...sentences(change), ...fields(change), ...going(moves, told.agents));
  byId("plan-cost").textContent = cost(told.cost_per_hour);
  const can = change.action === "create" || change.action === "update" || moves.length > 0;
  byId("store").hidden = !can || change.action === "refused";
  byId("rollout-choice").hidden = !moves.length;
  byId("rollout").checked = false;
  byId("rollout-choice").querySelector("span").textContent = `Roll it out to ${moves.length === 1 ? "its cluster" : `its ${moves.length} clusters`}, too`;
  byId("store-button").dataset.version = change.version;
  label();
}

const label = () => { const button = byId("store-button"); button.textContent = `Store version ${button.dataset.version}${byId("rollout").checked ? " and roll it out" : ""}`; };

function sentences(change) {
  const words = { create: "Version %v is new and will be stored.", update: "Version %v comes back into use.", unchanged: "Version %v is stored with just this text.", refused: "Version %v cannot be stored." };
  const found = [made("p", words[change.action].replace("%v", change.version), change.action === "refused" ? "bad-text" : "strong")];
  if (change.reason) found.push(made("p", change.reason, change.action === "refused" ? "" : "muted"));
  return found;
}

function fields(change) {
  if (!change.fields.length || change.action === "create" && !change.diff) return [];
  const list = made("ul", "", "changes"), shown = (value) => (value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
  for (const one of change.fields.slice(0, 30)) {
    const item = made("li", "", "");
    item.append(made("span", one.field, "mono"), made("del", shown(one.before), ""), made("span", "→", "muted"), made("ins", shown(one.after), ""));
    list.append(item);
  }
  if (change.fields.length > 30) list.append(made("li", `and ${change.fields.length - 30} more`, "muted"));
  return [list];
}

function going(moves, agents) {
  if (!moves.length) return [made("p", "No cluster runs an older version of it.", "muted")];
  const list = made("ul", "", "moves");
  for (const one of moves.slice(0, 20)) {
    const item = made("li", "", "");
    item.append(made("b", one.cluster_id, ""), made("span", ` ${one.from_version ?? ""} → ${one.to_version ?? ""}: ${one.reason || (one.agents.replaced ? `${one.agents.replaced} agents replaced` : "no agent replaced")}`, "muted"));
    list.append(item);
  }
  if (moves.length > 20) list.append(made("li", `and ${moves.length - 20} more`, "muted"));
  const { replaced, started, stopped } = agents, none = replaced + started + stopped === 0;
  return [made("p", none ? "Rolled out, it changes these clusters, and no agent of them now:" : `Rolled out, it replaces ${replaced}, starts ${started} and stops ${stopped} agents:`, ""), list];
}

const cost = ({ before, after }) => (after == null || before == null ? "" : `${+before.toFixed(2)} → ${+after.toFixed(2)} per hour if rolled out`);

async function store() {
  const button = byId("store-button");
  if (byId("store").hidden || button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    const { good, told } = await ask("/api/blueprints", { yaml: text.value, rollout: byId("rollout").checked });
    if (!good) return toast("bad", told.title, [told.detail, ...(told.errors || []).map((one) => one.detail)].filter(Boolean).join(" · "));
    text.dataset.stored = "yes";
    location.assign(`/blueprints/${encodeURIComponent(told.id)}`);
  } catch {
    toast("bad", "The server does not answer", "Whether it was stored is not known. Try again: the same text again changes nothing.");
  } finally {
    button.removeAttribute("aria-busy");
  }
}

function made(name, words, kind) {
  const found = document.createElement(name);
  found.textContent = words;
  if (kind) found.className = kind;
  return found;
}
