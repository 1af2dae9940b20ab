// A line of figures: what, its value, the small print.
const SHEET = `
.ss { display: flex; flex-wrap: wrap; gap: 6px 26px; font-family: var(--st-font); color: var(--st-text-color);
  font-variant-numeric: tabular-nums; padding: 2px 0 4px; }
.ss div { min-width: 76px; }
.ss .l { font-size: 11.5px; opacity: .7; } .ss .v { font-size: 19px; font-weight: 600; line-height: 1.25; white-space: nowrap; }
.ss .n { font-size: 11.5px; opacity: .7; }
@media (max-width: 640px) { .ss { gap: 6px 18px; } .ss .v { font-size: 17px; } }`;

export default function ({ parentElement, data }) {
  let at = parentElement.querySelector(".ss");
  if (!at) {
    const style = document.createElement("style");
    style.textContent = SHEET;
    at = document.createElement("div");
    at.className = "ss";
    parentElement.append(style, at);
  }
  at.replaceChildren(...data.map((figure) => {
    const box = document.createElement("div");
    for (const [cls, text] of [["l", figure.label], ["v", figure.value], ["n", figure.note]]) {
      const line = document.createElement("div");
      line.className = cls;
      line.textContent = text;
      if (text) box.append(line);
    }
    return box;
  }));
}
