"""What one run of a page works with: the process's shared readers, and this viewer's preferences."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import streamlit as st

from sise.calendars import COUNTRIES, Calendar
from sise.dashboard.asks import Asks
from sise.dashboard.data.names import name_of
from sise.dashboard.data.system import Streams
from sise.dashboard.data.view import LakeView
from sise.dashboard.i18n import Words
from sise.dashboard.live import Feed
from sise.dashboard.prefs import Preferences
from sise.indicators.registry import Registry
from sise.serving.relay import RulesFile
from sise.settings import Settings
from sise.signals.rules import LiveRules

__all__ = ["Here", "Shared", "shared"]


@dataclass
class Shared:
    """One for the whole process: fifty viewers are one reader of Redis and of each table."""

    settings: Settings
    view: LakeView
    feed: Feed
    asks: Asks
    streams: Streams
    calendars: Mapping[str, Calendar]
    registry: Registry
    file: RulesFile

    @property
    def rules(self) -> LiveRules:
        """The live rules as the file has them now: a change is seen without a restart."""
        self.file.changed()
        return self.file.rules

    def today(self) -> dict[str, date]:
        """The day by each country's own clock, or SISE_TODAY."""
        return {c: self.settings.today or calendar.today() for c, calendar in self.calendars.items()}


@st.cache_resource
def shared() -> Shared:
    settings = Settings.from_env()
    registry = Registry.load(settings.conf_file("indicators.json"))
    overrides, cache = settings.conf / "calendar_overrides.json", settings.local / "cache"
    made = Shared(
        settings,
        LakeView(settings),
        Feed(settings),
        Asks(settings, Path(__file__).resolve().parents[3]),
        Streams(settings),
        {country: Calendar.load(country, overrides, cache) for country in COUNTRIES},
        registry,
        RulesFile(settings.conf_file("watchlists.json"), registry),
    )
    atexit.register(made.asks.close)  # a job that nobody waits for any more
    made.feed.start()  # last: what fails above is tried again with the next page, and would leave a thread each time
    return made


@dataclass
class Here:
    """One run for one viewer. ``pages``: the st.Page of each name, to go there."""

    shared: Shared
    prefs: Preferences
    pages: Mapping[str, Any]

    @property
    def words(self) -> Words:
        return self.prefs.words

    @property
    def view(self) -> LakeView:
        return self.shared.view

    @property
    def settings(self) -> Settings:
        return self.shared.settings

    def name(self, share: str) -> str:
        return name_of(self.view, share)
