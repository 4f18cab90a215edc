// The dashboard's own scripts. Pages can be read without them.
import { watchActions } from "./actions.js";
import { drawCharts } from "./charts.js";
import { watchKeys } from "./keys.js";
import { watchEditor } from "./editor.js";
import { keepLive } from "./live.js";
import { watchSecrets } from "./secret.js";
import { watchTheme } from "./theme.js";
import { keepTimes } from "./times.js";

document.documentElement.classList.add("js");
watchTheme();
watchActions();
watchKeys();
watchSecrets();
watchEditor();
keepTimes();
drawCharts();
keepLive(() => { keepTimes(); drawCharts(); });
