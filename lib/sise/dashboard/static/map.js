// The market as a map: each share's area is its market cap, its colour its return. Squarified (Bruls, Huizing, van Wijk).
// data: {shares: [{share, symbol, name, size, value, label}], span, colours, height, none}
import go from "./go.js";

const SHEET = `.sm { position: relative; width: 100%; overflow: hidden; border-radius: 6px; font-family: var(--st-font); }
.sm div { position: absolute; box-sizing: border-box; overflow: hidden; color: #fff; cursor: pointer; border: 1px solid var(--st-background-color);
  text-align: center; display: flex; flex-direction: column; justify-content: center; line-height: 1.15; font-variant-numeric: tabular-nums; }
.sm div:hover, .sm div:focus-visible { outline: 2px solid var(--st-text-color); outline-offset: -2px; z-index: 1; }
.sm b { font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; padding: 0 2px; } .sm i { font-style: normal; opacity: .92; white-space: nowrap; }`;

function squarify(items, x, y, w, h, out) {
  let rest = [...items], total = rest.reduce((sum, i) => sum + i.size, 0);
  const scale = total ? (w * h) / total : 0;
  while (rest.length) {
    const side = Math.min(w, h);
    let row = [], sum = 0, worst = Infinity;
    for (const item of rest) {
      const area = item.size * scale, next = sum + area;
      const areas = [...row, item].map((i) => i.size * scale);
      const shape = Math.max((side * side * Math.max(...areas)) / (next * next), (next * next) / (side * side * Math.min(...areas)));
      if (row.length && shape > worst) break;
      row.push(item); sum = next; worst = shape;
    }
    const depth = side ? sum / side : 0;
    let at = 0;
    for (const item of row) {
      const length = depth ? (item.size * scale) / depth : 0;
      out.push(w >= h ? [item, x, y + at, depth, length] : [item, x + at, y, length, depth]);
      at += length;
    }
    if (w >= h) { x += depth; w -= depth; } else { y += depth; h -= depth; }
    rest = rest.slice(row.length);
  }
  return out;
}

function mix(hex, share) {
  return `color-mix(in oklab, ${hex} ${Math.round(100 * share)}%, #4d5663)`;
}

export default function ({ parentElement, data, setTriggerValue }) {
  let at = parentElement.querySelector(".sm");
  if (!at) {
    const style = document.createElement("style");
    style.textContent = SHEET;
    at = document.createElement("div");
    at.className = "sm";
    parentElement.append(style, at);
  }
  at.style.height = data.height + "px";
  const draw = () => {
    const boxes = squarify(data.shares, 0, 0, at.clientWidth, data.height, []);
    at.replaceChildren(...boxes.map(([share, x, y, w, h]) => {
      const box = document.createElement("div");
      Object.assign(box.style, { left: x + "px", top: y + "px", width: w + "px", height: h + "px" });
      const strength = Math.min(1, Math.abs(share.value ?? 0) / data.span);
      box.style.background = mix((share.value ?? 0) >= 0 ? data.colours.up : data.colours.down, strength);
      box.title = `${share.symbol} ${share.name} ${share.label}`;
      box.tabIndex = w > 34 && h > 22 ? 0 : -1;
      box.setAttribute("role", "link");
      box.onclick = () => go(setTriggerValue, "opened", share.share);
      box.onkeydown = (e) => { if (e.key === "Enter") go(setTriggerValue, "opened", share.share); };
      if (w > 40 && h > 18) {
        const code = document.createElement("b");
        code.textContent = w > 90 && share.name ? share.name : share.symbol;
        code.style.fontSize = Math.max(10, Math.min(17, w / 8)) + "px";
        box.append(code);
        if (h > 36) {
          const value = document.createElement("i");
          value.textContent = share.label;
          value.style.fontSize = Math.max(10, Math.min(14, w / 9)) + "px";
          box.append(value);
        }
      }
      return box;
    }));
  };
  draw();
  if (at.watch) at.watch.disconnect();
  let width = at.clientWidth;
  at.watch = new ResizeObserver(() => { if (at.clientWidth !== width) { width = at.clientWidth; draw(); } });
  at.watch.observe(at);
  return () => at.watch.disconnect();
}
