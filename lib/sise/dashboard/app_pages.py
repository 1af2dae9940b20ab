"""The pages by name, in their order, with their icons."""

from __future__ import annotations

__all__ = ["PAGES"]

PAGES = {
    "signals": ":material/bolt:",
    "symbol": ":material/candlestick_chart:",
    "watchlists": ":material/checklist:",
    "performance": ":material/query_stats:",
    "backtest": ":material/history:",
    "market": ":material/grid_view:",
    "system": ":material/monitor_heart:",
    "settings": ":material/settings:",
}
