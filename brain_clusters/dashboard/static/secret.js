// Shows a key that was made, once: it is nowhere in the page afterwards.
import { toast } from "./actions.js";

export function watchSecrets() {
  const dialog = document.getElementById("secret");
  if (!dialog) return;
  const place = document.getElementById("secret-text");
  document.addEventListener("brain:secret", (event) => {
    place.textContent = event.detail;
    dialog.showModal();
  });
  dialog.addEventListener("close", () => { place.textContent = ""; });
  document.getElementById("secret-copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(place.textContent);
      document.getElementById("secret-copy").textContent = "Copied";
    } catch { // browsers allow it on https and on localhost only
      getSelection().selectAllChildren(place);
      toast("warn", "Copy it by hand", "The browser does not let pages copy here; the key is selected.");
    }
  });
}
