// Times as how long ago they are, kept true while a page stands still. The server writes the same words.
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const EVERY_MS = 1000;
let runs = false;

export function keepTimes() {
  for (const time of document.querySelectorAll("main time[datetime]")) {
    const text = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
  if (!runs) { runs = true; setInterval(keepTimes, EVERY_MS); }
}

function ago(seconds) {
  if (Math.abs(seconds) < 1) return "now";
  const size = Math.abs(seconds);
  const [unit, name] = UNITS.find(([one]) => size >= one);
  const value = name === "s" && size < 10 ? (size / unit).toFixed(1) : Math.floor(size / unit);
  return seconds > 0 ? `${value} ${name} ago` : `in ${value} ${name}`;
}
