// Finds a share by code or name, by keyboard: "/" comes here, arrows and Enter choose, Escape leaves.
import go from "./go.js";

const SHEET = `
.sf { position: relative; font-family: var(--st-font); font-size: 14px; color: var(--st-text-color); }
.sf input { width: 100%; box-sizing: border-box; padding: 7px 34px 7px 12px; font: inherit; color: inherit; border-radius: 6px;
  background: var(--st-secondary-background-color); border: 1px solid transparent; }
.sf input:focus { outline: none; border-color: var(--st-primary-color); }
.sf kbd { position: absolute; right: 10px; top: 8px; font: 11px var(--st-font); opacity: .6; border: 1px solid currentColor; border-radius: 4px; padding: 0 6px; }
.sf ul { position: absolute; z-index: 1000; left: 0; right: 0; top: calc(100% + 3px); margin: 0; padding: 4px; list-style: none;
  background: var(--st-background-color); border: 1px solid var(--st-border-color); border-radius: 6px; max-height: 340px; overflow: auto;
  box-shadow: 0 8px 24px rgba(0,0,0,.22); }
.sf li { display: flex; gap: 10px; padding: 6px 8px; border-radius: 4px; cursor: pointer; font-variant-numeric: tabular-nums; }
.sf li.at { background: var(--st-secondary-background-color); }
.sf li b { min-width: 5.2em; } .sf li span { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } .sf li i { opacity: .6; font-style: normal; font-size: 12px; }
.sf li.none { cursor: default; opacity: .7; }
@media (max-width: 640px) { .sf kbd { display: none; } .sf input { padding-right: 12px; font-size: 16px; } }`;

export default function ({ parentElement, data, setStateValue, setTriggerValue }) {
  let at = parentElement.querySelector(".sf");
  if (!at) {
    const style = document.createElement("style");
    style.textContent = SHEET;
    at = document.createElement("div");
    at.className = "sf";
    const input = document.createElement("input");
    input.type = "search"; input.autocomplete = "off"; input.spellcheck = false;
    input.setAttribute("role", "combobox"); input.setAttribute("aria-expanded", "false");
    const key = document.createElement("kbd"), list = document.createElement("ul");
    key.textContent = "/";
    list.hidden = true;
    list.setAttribute("role", "listbox");
    at.append(input, key, list);
    parentElement.append(style, at);
    const own = (at.own = { input, list, at: 0, found: [], timer: 0, asked: "" });
    input.oninput = () => {
      clearTimeout(own.timer);
      own.timer = setTimeout(() => { own.asked = input.value; own.send("text", input.value); }, 70);
      if (!input.value) list.hidden = true;
    };
    input.onkeydown = (e) => {
      if (e.key === "ArrowDown" || e.key === "ArrowUp") {
        own.at = Math.max(0, Math.min(own.found.length - 1, own.at + (e.key === "ArrowDown" ? 1 : -1)));
        mark(own);
        e.preventDefault();
      } else if (e.key === "Enter" && own.asked === input.value && own.found[own.at]) pick(own, own.found[own.at]);
      else if (e.key === "Enter") { own.hurry = true; clearTimeout(own.timer); own.asked = input.value; own.send("text", input.value); }
      else if (e.key === "Escape") { list.hidden = true; input.blur(); }
      e.stopPropagation();
    };
    input.onblur = () => setTimeout(() => { list.hidden = true; }, 150);
    input.onfocus = () => { if (own.found.length && input.value) list.hidden = false; };
    own.key = (e) => {
      const typing = e.composedPath().some((n) => n.matches && n.matches("input, textarea, select, [contenteditable=true]"));
      if (e.key === "/" && !typing && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); input.focus(); input.select(); }
    };
  }
  const own = at.own;
  document.addEventListener("keydown", own.key);
  own.send = setStateValue;
  own.choose = setTriggerValue;
  own.input.placeholder = data.hint;
  own.input.setAttribute("aria-label", data.hint);
  if (data.text === own.input.value || data.text === own.asked) show(own, data);
  return () => document.removeEventListener("keydown", own.key);
}

function show(own, data) {
  own.found = data.found;
  own.at = 0;
  if (own.hurry && data.text === own.input.value) {
    own.hurry = false;
    if (own.found.length) return pick(own, own.found[0]);
  }
  const rows = own.found.map((share) => {
    const row = document.createElement("li"), code = document.createElement("b"), name = document.createElement("span"), market = document.createElement("i");
    code.textContent = share.symbol; name.textContent = share.name; market.textContent = share.market;
    row.setAttribute("role", "option");
    row.append(code, name, market);
    row.onmousedown = (e) => { e.preventDefault(); pick(own, share); };
    return row;
  });
  if (!rows.length && data.text.trim()) {
    const none = document.createElement("li");
    none.className = "none";
    none.textContent = data.none;
    rows.push(none);
  }
  own.list.replaceChildren(...rows);
  own.list.hidden = !rows.length || !own.input.value;
  own.input.setAttribute("aria-expanded", String(!own.list.hidden));
  mark(own);
}

function mark(own) {
  [...own.list.children].forEach((row, i) => { row.classList.toggle("at", i === own.at && !row.classList.contains("none")); });
  const row = own.list.children[own.at];
  if (row) row.scrollIntoView({ block: "nearest" });
}

function pick(own, share) {
  own.list.hidden = true;
  own.input.value = "";
  own.asked = "";
  own.input.blur();
  go(own.choose, "picked", share.share);
}
