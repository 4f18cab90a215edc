// Keyboard: g and a letter goes to a screen, / searches, r reads again, t switches the theme, ? shows all of it.
import { nextTheme } from "./theme.js";

const PATIENCE_MS = 1200;
let goes = 0;

export function watchKeys() {
  const help = document.getElementById("keys");
  document.getElementById("help")?.addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog[open]")) return;
    if (Date.now() - goes < PATIENCE_MS) {
      goes = 0;
      const link = document.querySelector(`#nav a[data-key="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    const search = document.querySelector("main input[type=search]");
    if (event.key === "g") goes = Date.now();
    else if (event.key === "/" && search) { event.preventDefault(); search.focus(); search.select(); }
    else if (event.key === "?") { event.preventDefault(); help.showModal(); }
    else if (event.key === "t") nextTheme();
    else if (event.key === "r") document.dispatchEvent(new Event("brain:changed"));
  });
}
