// Lines over days on one or more panes (TradingView Lightweight Charts): equity, breadth.
// data: {panes: [{title, lines: [{name, colour, dark, values, area}], percent, digits}], t: [...], height, locale}
import { createChart, LineSeries, BaselineSeries, HistogramSeries } from "./lightweight-charts.mjs";
import { framed } from "./frame.js";

const SHEET = `.sl { position: relative; font-family: var(--st-font); }
.sl .legend { position: absolute; z-index: 3; left: 8px; font-size: 12px; pointer-events: none; color: var(--st-text-color); font-variant-numeric: tabular-nums; }
.sl .legend span { margin-right: 10px; white-space: nowrap; }`;

export default function ({ parentElement, data }) {
  framed(parentElement, "sl", SHEET, data, draw);
}

function draw(at, data, css, dark) {
  const ink = css.getPropertyValue("--st-text-color").trim(), line = dark ? "rgba(255,255,255,.07)" : "rgba(0,0,0,.06)";
  const box = document.createElement("div");
  box.style.height = data.height + "px";
  at.append(box);
  const chart = createChart(box, {
    autoSize: true,
    layout: { background: { color: "transparent" }, textColor: ink, fontSize: 11, fontFamily: css.getPropertyValue("--st-font"), panes: { separatorColor: line } },
    grid: { vertLines: { color: line }, horzLines: { color: line } },
    rightPriceScale: { borderVisible: false, minimumWidth: 60 },
    timeScale: { borderVisible: false, rightOffset: 2 },
    handleScroll: { mouseWheel: false }, handleScale: { mouseWheel: false },
    localization: { locale: data.locale, dateFormat: "yyyy-MM-dd" },
  });
  at.chart = chart;
  const place = new Map(data.t.map((t, i) => [t, i]));
  const legends = [];
  data.panes.forEach((pane, n) => {
    const number = new Intl.NumberFormat(data.locale, pane.percent ? { style: "percent", maximumFractionDigits: pane.digits ?? 1 } : { maximumFractionDigits: pane.digits ?? 0 });
    const format = { type: "custom", minMove: pane.percent ? 0.0001 : 0.01, formatter: (v) => number.format(v) };
    for (const each of pane.lines) {
      const colour = dark ? each.dark : each.colour;
      const options = { lastValueVisible: false, priceLineVisible: false, priceFormat: format };
      const kind = each.bars ? HistogramSeries : LineSeries;
      const added = chart.addSeries(kind, { ...options, color: colour, lineWidth: each.width || 2, lineStyle: each.dash ? 2 : 0 }, n);
      added.setData(data.t.map((time, i) => (each.values[i] === null ? { time } : { time, value: each.values[i] })));
    }
    const legend = document.createElement("div");
    legend.className = "legend";
    at.append(legend);
    legends.push((i) => {
      legend.replaceChildren();
      const title = document.createElement("span");
      title.textContent = (n === 0 ? data.t[i] + "  " : "") + pane.title;
      legend.append(title);
      for (const each of pane.lines) {
        const span = document.createElement("span");
        span.textContent = each.name + " " + (each.values[i] === null ? "–" : number.format(each.values[i]));
        span.style.color = dark ? each.dark : each.colour;
        legend.append(span);
      }
    });
  });
  const tell = (i) => legends.forEach((legend) => legend(i));
  const put = () => {
    let top = 0;
    chart.panes().forEach((pane, n) => {
      at.querySelectorAll(".legend")[n].style.top = top + 3 + "px";
      top += pane.getHeight() + 1;
    });
  };
  if (data.t.length) tell(data.t.length - 1);
  chart.subscribeCrosshairMove((e) => { const i = e.time === undefined ? data.t.length - 1 : place.get(e.time); if (i !== undefined) tell(i); });
  requestAnimationFrame(put);
  new ResizeObserver(put).observe(box);
  chart.timeScale().fitContent();
}
