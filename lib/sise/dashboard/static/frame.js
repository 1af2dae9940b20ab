// What the charts share: how light a colour is (0 to 1), and a box that is drawn again only when its data or the theme has
// changed.
export function luminance(colour) {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = colour.trim() || "#fff";
  const hex = probe.fillStyle;
  if (!hex.startsWith("#")) return 1;
  const n = parseInt(hex.slice(1), 16);
  return (0.299 * (n >> 16) + 0.587 * ((n >> 8) & 255) + 0.114 * (n & 255)) / 255;
}

// ``draw(at, data, css, dark)`` sets at.chart, of which only remove() is asked.
export function framed(parentElement, name, sheet, data, draw) {
  let at = parentElement.querySelector("." + name);
  if (!at) {
    const style = document.createElement("style");
    style.textContent = sheet;
    at = document.createElement("div");
    at.className = name;
    parentElement.append(style, at);
  }
  const css = getComputedStyle(parentElement.host || parentElement);
  const dark = luminance(css.getPropertyValue("--st-background-color")) < 0.5;
  const text = JSON.stringify(data) + dark;
  if (at.drawn === text) return;
  if (at.chart) at.chart.remove();
  at.drawn = text;
  at.replaceChildren();
  draw(at, data, css, dark);
}
