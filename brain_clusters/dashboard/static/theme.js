// The theme: auto, light or dark. It lies in a cookie, so that the server sends pages that need not change colour.
const THEMES = ["auto", "light", "dark"];
const YEAR = 31536000;

export function watchTheme() {
  document.getElementById("theme")?.addEventListener("click", nextTheme);
}

export function nextTheme() {
  const root = document.documentElement;
  const theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  root.dataset.theme = theme;
  document.querySelector("meta[name=color-scheme]").content = theme === "auto" ? "light dark" : theme;
  document.cookie = `brain_theme=${theme}; path=/; max-age=${YEAR}; samesite=strict`;
  const button = document.getElementById("theme");
  button.title = `Theme: ${theme}`;
  button.setAttribute("aria-label", `Theme: ${theme}. Switch`);
  document.dispatchEvent(new Event("brain:theme"));
}
