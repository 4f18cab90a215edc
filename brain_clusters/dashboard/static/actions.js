// Buttons and forms with data-action="METHOD /path" call the REST API; what comes of it is told in a toast.
//
// data-body: JSON to send. data-confirm: the question to ask before. data-typed: a name to type before.
// data-done: what to say at the end; {name} stands for a figure of the answer. data-reveal: the answer holds a secret,
// which is shown (see secret.js). data-next: the page to go to then; {cluster} in it is the
// id of the answer's cluster. A form's fields become the body; a field named
// a.b goes into the object a, and empty fields are left out.

const POLL_MS = 500;
const TOAST_MS = 6000;

export function watchActions() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]");
    if (button) { event.preventDefault(); start(button, () => JSON.parse(button.dataset.body || "{}")); }
  });
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-action]");
    if (form) { event.preventDefault(); start(form, () => bodyOf(form)); }
  });
  for (const kind of ["input", "change"]) {
    document.addEventListener(kind, (event) => { const form = event.target.closest("form[data-action]"); if (form) form.dataset.editing = ""; });
  }
  document.addEventListener("reset", (event) => { delete event.target.dataset.editing; });
}

async function start(source, body) {
  const button = source.tagName === "FORM" ? source.querySelector("button:not([type=button]):not([type=reset])") : source;
  if (button.getAttribute("aria-busy") === "true" || !(await confirmed(source.dataset))) return;
  button.setAttribute("aria-busy", "true");
  try {
    await run(source, body());
  } finally {
    button.removeAttribute("aria-busy");
  }
}

async function run(source, body) {
  const [method, path] = source.dataset.action.split(" ");
  let answer, told;
  try {
    answer = await fetch(path, { method, headers: headers(), body: JSON.stringify(body) });
    told = answer.status === 204 ? {} : await answer.json();
  } catch {
    return toast("bad", "The server does not answer", "Nothing was changed, as far as is known. Try again.");
  }
  if (!answer.ok) return toast("bad", told.title || `Error ${answer.status}`, [told.detail, ...faults(told)].filter(Boolean).join(" · "));
  delete source.dataset.editing;
  if (told.operation) await follow(told.operation, source.dataset.done);
  else if (source.dataset.done) toast("ok", source.dataset.done.replace(/{(\w+)}/g, (_all, name) => told[name]));
  if ("reveal" in source.dataset) document.dispatchEvent(new CustomEvent("brain:secret", { detail: told.secret }));
  if (source.tagName === "FORM" && "reveal" in source.dataset) source.reset();
  if (source.dataset.next) location.assign(source.dataset.next.replace("{cluster}", encodeURIComponent(told.cluster?.id ?? "")));
  else changed();
}

export function headers() {
  const token = document.querySelector("meta[name=csrf-token]")?.content;
  return { "Content-Type": "application/json", Accept: "application/json", ...(token ? { "X-CSRF-Token": token } : {}) };
}

const faults = (told) => (told.errors || []).map((one) => `${one.pointer || ""} ${one.detail || one.message || ""}`.trim());
const changed = () => document.dispatchEvent(new Event("brain:changed"));

function bodyOf(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || field.value === "" || (field.type === "checkbox" && !field.checked)) continue;
    if ("same" in field.dataset && field.value === field.defaultValue) continue;
    const value = field.type === "number" ? Number(field.value) : field.type === "checkbox" ? true : field.dataset.list !== undefined ? field.value.split(",").map((one) => one.trim()).filter(Boolean) : field.value;
    const [outer, ...inner] = field.name.split(".");
    if (inner.length) (body[outer] ??= {})[inner.join(".")] = value;
    else body[outer] = value;
  }
  return body;
}

// Follows an operation to its end, and shows how far it is.
async function follow(operation, done) {
  const shown = toast("move", `${operation.kind[0].toUpperCase()}${operation.kind.slice(1)}: ${operation.status}`, "", true);
  changed();
  while (["pending", "running"].includes(operation.status)) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    try {
      const answer = await fetch(`/api/operations/${operation.id}`, { headers: headers() });
      if (answer.ok) operation = await answer.json();
    } catch { /* it goes on without us; the next look tells */ }
    shown.say(`${operation.kind[0].toUpperCase()}${operation.kind.slice(1)}: ${operation.status}`);
  }
  if (operation.status === "succeeded") shown.end("ok", done || `${operation.kind} is done`);
  else shown.end("bad", `${operation.kind} failed`, operation.error?.message);
  changed();
}

export function toast(tone, title, detail = "", stays = false) {
  const shape = { ok: "full", bad: "cross", move: "half", warn: "triangle" };
  const box = document.createElement("div");
  box.innerHTML = '<svg class="dot" aria-hidden="true"><use/></svg><p><b></b></p><button type="button" class="quiet" aria-label="Dismiss">×</button><p class="meta"></p>';
  const say = (text, more) => { box.querySelector("b").textContent = text; if (more !== undefined) box.querySelector(".meta").textContent = more; };
  const set = (kind) => { box.className = `toast ${kind}`; box.querySelector("svg").setAttribute("class", `dot ${kind}`); box.querySelector("use").setAttribute("href", `#dot-${shape[kind]}`); };
  const leave = (after) => setTimeout(() => box.remove(), after);
  box.querySelector("button").onclick = () => box.remove();
  set(tone);
  say(title, detail);
  document.getElementById("toasts").append(box);
  if (!stays && tone !== "bad") leave(TOAST_MS);
  return { say, end: (kind, text, more = "") => { set(kind); say(text, more); if (kind !== "bad") leave(TOAST_MS); } };
}

// Resolves to whether the person means it. A name to type guards what cannot be undone.
function confirmed({ confirm: question, typed, confirmText }) {
  if (!question && !typed) return true;
  const dialog = document.getElementById("confirm"), label = document.getElementById("confirm-typed");
  const input = label.querySelector("input"), yes = dialog.querySelector("[value=yes]");
  document.getElementById("confirm-title").textContent = question;
  document.getElementById("confirm-text").textContent = confirmText || "";
  label.hidden = !typed;
  label.querySelector("span").textContent = `Type ${typed} to confirm`;
  input.value = "";
  const judge = () => { yes.disabled = Boolean(typed) && input.value !== typed; };
  input.oninput = judge;
  judge();
  yes.className = typed ? "button danger" : "button primary";
  dialog.returnValue = "no";
  dialog.showModal();
  (typed ? input : yes).focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" && !yes.disabled), { once: true }));
}
