// A dense table: numbers aligned, rows kept by key, so that a new one is seen to arrive. Every text goes in as
// textContent: a name from outside cannot become markup.
//
// data: {columns: [{key, label, kind, phone, title}], rows: [{id, share, country, …}], sort: {key, down}, empty,
//        locale, zone, words: {…}, colours: {up, down}, height, picked}
// kinds: text name rule price pct points int compact number date time ago spark meter side

import { luminance } from "./frame.js";
import go from "./go.js";

const SHEET = `
:host, .sg { font-family: var(--st-font); font-size: 13px; color: var(--st-text-color); }
.sg { overflow: auto; border: 1px solid var(--st-border-color); border-radius: 6px; }
.sg table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.sg th { position: sticky; top: 0; z-index: 1; background: var(--st-secondary-background-color); font-weight: 600;
  text-align: left; padding: 5px 9px; white-space: nowrap; cursor: pointer; user-select: none; font-size: 12px;
  border-bottom: 1px solid var(--st-border-color); }
.sg th:focus-visible, .sg tr:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: -2px; }
.sg td { padding: 4px 9px; white-space: nowrap; border-bottom: 1px solid var(--sg-line); }
.sg td { max-width: 24em; overflow: hidden; text-overflow: ellipsis; }
.sg tr:last-child td { border-bottom: 0; }
.sg .n { text-align: right; }
.sg tbody tr.open { cursor: pointer; }
.sg tbody tr.open:hover, .sg tbody tr.picked { background: var(--st-secondary-background-color); }
.sg tbody tr.new { animation: sg-new 6s ease-out; }
@keyframes sg-new { 0%, 30% { background: color-mix(in srgb, var(--st-primary-color) 22%, transparent); } }
.sg .code { font-weight: 600; }
.sg .nm { opacity: .75; margin-left: 7px; display: inline-block; max-width: 15em; overflow: hidden;
  text-overflow: ellipsis; vertical-align: bottom; }
.sg td.wide { white-space: normal; min-width: 16em; max-width: 48em; overflow-wrap: anywhere; }
.sg .up { color: var(--sg-up); } .sg .down { color: var(--sg-down); } .sg .dim { opacity: .55; }
.sg .tag { display: inline-block; padding: 0 6px; border-radius: 3px; background: var(--sg-tag); line-height: 1.5; }
.sg .bad { color: var(--sg-bad); font-weight: 600; } .sg .good { color: var(--sg-good); }
.sg .meter { display: inline-block; width: 64px; height: 6px; border-radius: 3px; background: var(--sg-line);
  vertical-align: middle; margin-right: 6px; overflow: hidden; }
.sg .meter i { display: block; height: 100%; background: var(--st-primary-color); }
.sg svg { display: block; margin-left: auto; }
.sg .none { padding: 22px 16px; opacity: .75; text-align: center; white-space: normal; }
@media (max-width: 640px) {
  .sg { font-size: 12px; } .sg td { padding: 6px 4px; } .sg th { padding: 5px 4px; font-size: 11px; }
  .sg .far { display: none; } .sg .nm { display: block; margin-left: 0; max-width: 8em; font-size: 11px; }
  .sg .tag { max-width: 8em; overflow: hidden; text-overflow: ellipsis; padding: 0 3px; vertical-align: bottom; }
}`;

const formats = new Map();
function number(locale, options) {
  const key = locale + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(locale, options));
  return formats.get(key);
}

export function price(value, country, locale) {
  if (country === "KR") return number(locale, { maximumFractionDigits: value < 100 ? 2 : 0 }).format(value) + (locale.startsWith("ko") ? "원" : "");
  return "$" + number(locale, { minimumFractionDigits: 2, maximumFractionDigits: value < 1 ? 4 : 2 }).format(value);
}

function moment(ms, zone, locale, dated) {
  const options = { timeZone: zone, hourCycle: "h23", hour: "2-digit", minute: "2-digit", second: "2-digit" };
  if (dated) Object.assign(options, { month: "2-digit", day: "2-digit" });
  const key = "t" + locale + zone + dated;
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(locale, options));
  return formats.get(key).format(ms);
}

function day(ms, zone) {
  const key = "d" + zone;
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat("en-CA", { timeZone: zone }));
  return formats.get(key).format(ms);
}

function spark(values, rising) {
  const known = values.filter((v) => v !== null && isFinite(v));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", "84"); svg.setAttribute("height", "20"); svg.setAttribute("role", "img");
  if (known.length < 2) return svg;
  const low = Math.min(...known), span = Math.max(...known) - low || 1;
  const points = known.map((v, i) => `${(1 + (i * 82) / (known.length - 1)).toFixed(1)},${(18 - ((v - low) / span) * 16).toFixed(1)}`);
  const line = document.createElementNS(svg.namespaceURI, "polyline");
  line.setAttribute("points", points.join(" ")); line.setAttribute("fill", "none");
  line.setAttribute("stroke", rising ? "var(--sg-up)" : "var(--sg-down)"); line.setAttribute("stroke-width", "1.4");
  svg.append(line);
  const end = document.createElementNS(svg.namespaceURI, "circle");
  const [x, y] = points[points.length - 1].split(",");
  end.setAttribute("cx", x); end.setAttribute("cy", y); end.setAttribute("r", "1.8");
  end.setAttribute("fill", rising ? "var(--sg-up)" : "var(--sg-down)");
  svg.append(end);
  return svg;
}

function element(tag, cls, text) {
  const made = document.createElement(tag);
  if (cls) made.className = cls;
  if (text !== undefined) made.textContent = text;
  return made;
}

const NUMERIC = new Set(["price", "pct", "points", "int", "compact", "number", "spark", "meter", "seconds"]);

function fill(cell, column, row, data) {
  const value = row[column.key], { locale } = data;
  if (value === null || value === undefined || value === "" || (typeof value === "number" && !isFinite(value))) {
    cell.append(element("span", "dim", "–"));
    return;
  }
  switch (column.kind) {
    case "name":
      cell.append(element("span", "code", row.symbol));
      if (row.name) { const nm = element("span", "nm", row.name); nm.title = row.name; cell.append(nm); }
      break;
    case "rule": cell.append(element("span", "tag", data.words[value] || value)); break;
    case "side": {
      const up = value === "long";
      cell.append(element("span", up ? "up" : "down", (up ? "▲ " : "▼ ") + (data.words[value] || value)));
      break;
    }
    case "price": cell.textContent = price(value, row.country, locale); break;
    case "pct": case "points": {
      const digits = column.digits ?? 2;
      const text = number(locale, { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "never" }).format(value);
      const zero = Math.abs(value) < 0.5 / 10 ** (digits + 2);
      if (column.kind === "points") cell.textContent = (value < 0 && !zero ? "−" : "") + text;
      else cell.append(element("span", zero ? "dim" : value > 0 ? "up" : "down", (zero ? "" : value > 0 ? "▲ " : "▼ ") + text));
      break;
    }
    case "int": cell.textContent = number(locale, { maximumFractionDigits: 0 }).format(value); break;
    case "seconds": cell.textContent = number(locale, { maximumFractionDigits: 1, minimumFractionDigits: 1 }).format(value); break;
    case "number": cell.textContent = number(locale, { maximumSignificantDigits: Math.abs(value) >= 1000 ? 6 : 4 }).format(value); break;
    case "compact": cell.textContent = number(locale, { notation: "compact", maximumFractionDigits: 1 }).format(value); break;
    case "time": cell.textContent = moment(value, data.zone, locale, day(value, data.zone) !== day(Date.now(), data.zone)); cell.title = moment(value, data.zone, locale, true); break;
    case "moment": cell.textContent = moment(value, data.zone, locale, true); break;
    case "spark": cell.append(spark(value, column.rising ? row[column.rising] >= 0 : value[value.length - 1] >= value[0])); break;
    case "meter": {
      const box = element("span", "meter"), bar = element("i");
      bar.style.width = Math.round(100 * Math.max(0, Math.min(1, value))) + "%";
      box.append(bar);
      cell.append(box, number(locale, { style: "percent", maximumFractionDigits: 1 }).format(value));
      break;
    }
    case "state": cell.append(element("span", row.good ? "good" : "bad", (row.good ? "● " : "▲ ") + (data.words[value] || value))); break;
    default: cell.textContent = String(value);
  }
}

function ordered(rows, sort) {
  if (!sort) return rows;
  const place = (v) => (v === null || v === undefined || v === "" ? null : Array.isArray(v) ? v[v.length - 1] : v);
  return [...rows].sort((a, b) => {
    const x = place(a[sort.key]), y = place(b[sort.key]);
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
    return sort.down ? -order : order;
  });
}

export default function ({ parentElement, data: given, setTriggerValue }) {
  const data = typeof given.rows === "string" ? { ...given, rows: JSON.parse(given.rows) } : given;
  const dark = luminance(getComputedStyle(parentElement.host || parentElement).getPropertyValue("--st-background-color")) < 0.5;
  let at = parentElement.querySelector(".sg");
  if (!at) {
    const style = document.createElement("style");
    style.textContent = SHEET;
    at = element("div", "sg");
    parentElement.append(style, at);
  }
  at.sise = at.sise || { rows: new Map(), sort: data.sort || null, asked: JSON.stringify(data.sort || null), drawn: false };
  const own = at.sise;
  if (own.asked !== JSON.stringify(data.sort || null)) { own.sort = data.sort || null; own.asked = JSON.stringify(data.sort || null); }
  at.style.setProperty("--sg-up", data.colours[dark ? "up_dark" : "up"]);
  at.style.setProperty("--sg-down", data.colours[dark ? "down_dark" : "down"]);
  at.style.setProperty("--sg-good", dark ? "#4cc38a" : "#18794e");
  at.style.setProperty("--sg-bad", dark ? "#ff9a62" : "#b54708");
  at.style.setProperty("--sg-line", dark ? "rgba(255,255,255,.08)" : "rgba(0,0,0,.07)");
  at.style.setProperty("--sg-tag", dark ? "rgba(255,255,255,.10)" : "rgba(0,0,0,.06)");
  at.style.maxHeight = data.height ? data.height + "px" : "none";
  const draw = () => paint(at, own, data, setTriggerValue, draw);
  draw();
}

function paint(at, own, data, send, draw) {
  if (!data.rows.length) {
    own.rows = new Map(); own.head = null; own.drawn = true;
    at.replaceChildren(element("div", "none", data.empty || ""));
    return;
  }
  const head = JSON.stringify([data.columns, own.sort, data.locale]);
  if (own.head !== head) {
    own.head = head;
    own.rows = new Map();
    const table = element("table"), row = element("tr");
    for (const column of data.columns) {
      const th = element("th", classes(column), column.label + (own.sort && own.sort.key === column.key ? (own.sort.down ? " ↓" : " ↑") : ""));
      th.tabIndex = 0; th.scope = "col";
      if (column.title) th.title = column.title;
      const sort = () => {
        const same = own.sort && own.sort.key === column.key;
        own.sort = { key: column.key, down: same ? !own.sort.down : NUMERIC.has(column.kind) || column.kind === "time" };
        draw();
      };
      th.onclick = sort;
      th.onkeydown = (e) => { if (e.key === "Enter") sort(); };
      row.append(th);
    }
    const thead = element("thead");
    thead.append(row);
    own.body = element("tbody");
    table.append(thead, own.body);
    at.replaceChildren(table);
  }
  const shared = JSON.stringify([data.locale, data.zone, data.words, day(Date.now(), data.zone)]);
  if (own.shared !== shared) { own.shared = shared; own.rows = new Map(); }
  const kept = new Map(), nodes = [];
  for (const row of ordered(data.rows, own.sort)) {
    const text = JSON.stringify(row), before = own.rows.get(row.id);
    let node = before && before.text === text ? before.node : null;
    if (!node) {
      node = element("tr");
      node.dataset.id = row.id;
      for (const column of data.columns) {
        const cell = element("td", classes(column));
        fill(cell, column, row, data);
        node.append(cell);
      }
      if (row.share && data.opens) {
        node.classList.add("open");
        node.tabIndex = 0;
        // Not onclick: a row that is drawn anew between press and release would not hear it.
        node.onpointerdown = () => { own.pressed = row.id; };
        node.onpointerup = (e) => { if (own.pressed === row.id && e.button === 0 && !String(getSelection())) go(send, "opened", row.share); };
        node.onkeydown = (e) => { if (e.key === "Enter") go(send, "opened", row.share); };
      }
      if (!before && own.drawn && data.flash) node.classList.add("new");
    }
    kept.set(row.id, { node, text });
    nodes.push(node);
  }
  own.rows = kept;
  own.drawn = true;
  if (nodes.length !== own.body.children.length || nodes.some((n, i) => own.body.children[i] !== n)) own.body.replaceChildren(...nodes);
}

function classes(column) {
  return [NUMERIC.has(column.kind) ? "n" : "", column.phone === false ? "far" : "", column.wide ? "wide" : ""].filter(Boolean).join(" ");
}
