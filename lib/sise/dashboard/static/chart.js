// One share: candles, averages and bands, volume, RSI and MACD on one time axis (TradingView Lightweight Charts).
//
// data: {t: ["2025-01-02", …], o, h, l, c, v, lines: [{name, colour, dark, width, dash, values}], rsi, macd: {line, signal, hist},
//        marks: [{t, kind, label}], levels: [{price, label}], log, locale, digits, colours, height, words}
import { createChart, createSeriesMarkers, CandlestickSeries, LineSeries, HistogramSeries } from "./lightweight-charts.mjs";
import { framed } from "./frame.js";

const SHEET = `
.sc { position: relative; font-family: var(--st-font); }
.sc .legend { position: absolute; z-index: 3; left: 8px; top: 4px; font-size: 12px; line-height: 1.5; pointer-events: none;
  font-variant-numeric: tabular-nums; color: var(--st-text-color); max-width: calc(100% - 90px); }
.sc .legend span { margin-right: 9px; white-space: nowrap; display: inline-block; }
.sc .pane { position: absolute; z-index: 3; left: 8px; font-size: 11px; opacity: .8; pointer-events: none; color: var(--st-text-color);
  font-variant-numeric: tabular-nums; }`;

export default function ({ parentElement, data }) {
  framed(parentElement, "sc", SHEET, data, draw);
}

function draw(at, data, css, dark) {
  const up = data.colours[dark ? "up_dark" : "up"], down = data.colours[dark ? "down_dark" : "down"];
  const ink = css.getPropertyValue("--st-text-color").trim(), line = dark ? "rgba(255,255,255,.07)" : "rgba(0,0,0,.06)";
  const box = document.createElement("div");
  box.style.height = data.height + "px";
  at.append(box);
  const number = new Intl.NumberFormat(data.locale, { minimumFractionDigits: data.digits, maximumFractionDigits: data.digits });
  // A share that splits made cheap stood below 1 once: its labels then need more digits than those of today.
  const finer = new Intl.NumberFormat(data.locale, { minimumFractionDigits: 4, maximumFractionDigits: 4 });
  const price = (p) => (Math.abs(p) < 1 ? finer : number).format(p);
  const least = data.l.reduce((a, b) => (b === null ? a : Math.min(a, b)), Infinity);
  const compact = new Intl.NumberFormat(data.locale, { notation: "compact", maximumFractionDigits: 1 });
  const small = new Intl.NumberFormat(data.locale, { maximumFractionDigits: 1, minimumFractionDigits: 1 });
  const chart = createChart(box, {
    autoSize: true,
    layout: { background: { color: "transparent" }, textColor: ink, fontSize: 11, fontFamily: css.getPropertyValue("--st-font"),
      panes: { separatorColor: line, separatorHoverColor: line, enableResize: true } },
    grid: { vertLines: { color: line }, horzLines: { color: line } },
    crosshair: { mode: 0 },
    rightPriceScale: { borderVisible: false, mode: data.log ? 1 : 0, minimumWidth: 64 },
    timeScale: { borderVisible: false, rightOffset: 3, minBarSpacing: 0.2 },
    localization: { locale: data.locale, dateFormat: "yyyy-MM-dd" },
  });
  at.chart = chart;
  const series = (values) => data.t.map((time, i) => (values[i] === null ? { time } : { time, value: values[i] }));
  const quiet = { lastValueVisible: false, priceLineVisible: false, crosshairMarkerVisible: false };
  const candles = chart.addSeries(CandlestickSeries, { upColor: up, downColor: down, borderVisible: false, wickUpColor: up,
    wickDownColor: down, priceFormat: { type: "custom", minMove: 10 ** -(least < 1 ? 4 : data.digits), formatter: price } }, 0);
  candles.setData(data.t.map((time, i) => ({ time, open: data.o[i], high: data.h[i], low: data.l[i], close: data.c[i] })));
  for (const each of data.lines) {
    const added = chart.addSeries(LineSeries, { ...quiet, color: dark ? each.dark : each.colour, lineWidth: each.width || 1, lineStyle: each.dash ? 2 : 0 }, 0);
    added.setData(series(each.values));
  }
  for (const level of data.levels || []) {
    candles.createPriceLine({ price: level.price, title: level.label, color: ink, lineWidth: 1, lineStyle: 1, axisLabelVisible: true });
  }
  const volume = chart.addSeries(HistogramSeries, { ...quiet, priceFormat: { type: "custom", minMove: 1, formatter: (v) => compact.format(v) } }, 1);
  volume.setData(data.t.map((time, i) => ({ time, value: data.v[i], color: (data.c[i] >= data.o[i] ? up : down) + "99" })));
  let pane = 2;
  const panes = [[1, data.words.volume, (i) => compact.format(data.v[i])]];
  if (data.rsi) {
    const rsi = chart.addSeries(LineSeries, { ...quiet, color: dark ? "#c9a0ff" : "#7b4bb7", lineWidth: 1,
      priceFormat: { type: "custom", minMove: 0.1, formatter: (v) => small.format(v) },
      autoscaleInfoProvider: () => ({ priceRange: { minValue: 10, maxValue: 90 } }) }, pane);
    rsi.setData(series(data.rsi));
    for (const at of [30, 70]) rsi.createPriceLine({ price: at, color: ink + "66", lineWidth: 1, lineStyle: 2, axisLabelVisible: false });
    panes.push([pane, "RSI 14", (i) => (data.rsi[i] === null ? "–" : small.format(data.rsi[i]))]);
    pane += 1;
  }
  if (data.macd) {
    const format = { type: "custom", minMove: 0.0001, formatter: (v) => new Intl.NumberFormat(data.locale, { maximumSignificantDigits: 3 }).format(v) };
    const hist = chart.addSeries(HistogramSeries, { ...quiet, priceFormat: format }, pane);
    hist.setData(data.t.map((time, i) => (data.macd.hist[i] === null ? { time } : { time, value: data.macd.hist[i], color: (data.macd.hist[i] >= 0 ? up : down) + "88" })));
    for (const [values, colour] of [[data.macd.line, dark ? "#7db7ff" : "#1f6fb5"], [data.macd.signal, dark ? "#ffb454" : "#b36b00"]]) {
      const added = chart.addSeries(LineSeries, { ...quiet, color: colour, lineWidth: 1, priceFormat: format }, pane);
      added.setData(series(values));
    }
    panes.push([pane, "MACD 12 26 9", (i) => (data.macd.line[i] === null ? "–" : format.formatter(data.macd.line[i]))]);
    pane += 1;
  }
  const all = chart.panes(), shares = [5, 1.1, 1.2, 1.3];
  all.forEach((each, i) => each.setStretchFactor(shares[i] || 1));
  const place = new Map(data.t.map((t, i) => [t, i]));
  const shapes = { long: ["belowBar", up, "arrowUp"], short: ["aboveBar", down, "arrowDown"], split: ["aboveBar", dark ? "#c9a0ff" : "#7b4bb7", "square"],
    dividend: ["belowBar", dark ? "#9aa4af" : "#6b7280", "circle"] };
  // A label needs room: one that stands close behind another is left to the legend.
  const labelled = new Map(), marked = new Map();
  createSeriesMarkers(candles, (data.marks || []).filter((m) => place.has(m.t)).map((m) => {
    const [position, color, shape] = shapes[m.kind], at = place.get(m.t);
    const room = at - (labelled.get(position) ?? -100) > Math.max(8, data.shown / 12);
    if (room) labelled.set(position, at);
    marked.set(at, [...(marked.get(at) || []), [m.label, color]]);
    return { time: m.t, position, color, shape, text: room ? m.label : "", size: m.kind === "dividend" ? 0.5 : 1 };
  }));
  const legend = document.createElement("div");
  legend.className = "legend";
  at.append(legend);
  const titles = panes.map(([number_, title, read]) => {
    const made = document.createElement("div");
    made.className = "pane";
    at.append(made);
    return [number_, made, title, read];
  });
  const put = () => {
    let top = 0;
    all.forEach((each, i) => {
      const mine = titles.find(([n]) => n === i);
      if (mine) mine[1].style.top = top + 3 + "px";
      top += each.getHeight() + 1;
    });
  };
  const tell = (i) => {
    legend.replaceChildren();
    const say = (label, value, colour) => {
      const span = document.createElement("span");
      span.textContent = label + " " + value;
      if (colour) span.style.color = colour;
      legend.append(span);
    };
    const before = i > 0 ? data.c[i - 1] : data.o[i], tone = data.c[i] >= before ? up : down;
    say(data.t[i], "");
    for (const [label, value] of [[data.words.open, data.o[i]], [data.words.high, data.h[i]], [data.words.low, data.l[i]], [data.words.close, data.c[i]]]) say(label, price(value));
    if (data.change[i] !== null) say((data.change[i] >= 0 ? "▲" : "▼"), new Intl.NumberFormat(data.locale, { style: "percent", maximumFractionDigits: 2, signDisplay: "never" }).format(data.change[i]), tone);
    if (box.clientWidth > 640) for (const each of data.lines) if (each.values[i] !== null && !each.hidden) say(each.name, price(each.values[i]), dark ? each.dark : each.colour);
    for (const [label, colour] of marked.get(i) || []) say("◆", label, colour);
    for (const [, made, title, read] of titles) made.textContent = title + "  " + read(i);
  };
  tell(data.t.length - 1);
  chart.subscribeCrosshairMove((event) => {
    const i = event.time === undefined ? data.t.length - 1 : place.get(event.time);
    if (i !== undefined) tell(i);
  });
  requestAnimationFrame(() => { put(); at.dataset.bars = data.t.length; at.dataset.panes = all.length; });
  new ResizeObserver(put).observe(box);
  chart.timeScale().setVisibleLogicalRange({ from: Math.max(-1, data.t.length - data.shown) - 0.5, to: data.t.length + 2 });
}
