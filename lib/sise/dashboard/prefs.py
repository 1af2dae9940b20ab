"""How one viewer wants to see things: language, colours, time zone. Kept in the viewer's own browser (a cookie)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sise.dashboard.i18n import LANGUAGES, Words, language_of

__all__ = ["COLOURS", "COOKIE", "ZONES", "Preferences"]

COOKIE = "sise_prefs"
ZONES = {"KST": "Asia/Seoul", "ET": "America/New_York", "UTC": "UTC"}
# up and down on a light ground and on a dark one. "kr": red up, blue down; "western": green up, red down, in a bluish
# green and an orange red that colour-blind people tell apart. A sign always says the same.
COLOURS = {
    "kr": {"up": "#c8102e", "down": "#1558b0", "up_dark": "#ff6b6b", "down_dark": "#6ea8ff"},
    "western": {"up": "#00785a", "down": "#c2410c", "up_dark": "#2fcf9e", "down_dark": "#ff8a4c"},
}
THEMES = ("system", "light", "dark")


@dataclass(frozen=True)
class Preferences:
    language: str = "en"
    colours: str = "western"
    zone: str = "UTC"
    theme: str = "system"

    @classmethod
    def of(cls, cookies: Mapping[str, str], locale: str | None, timezone: str | None) -> Preferences:
        """What the browser says of itself, and over it what the viewer chose (the cookie); nonsense is left out."""
        language = language_of(locale)
        zone = next((short for short, name in ZONES.items() if name == timezone), "KST" if language == "ko" else "ET")
        found = cls(language, "kr" if language == "ko" else "western", zone)
        pairs = [part.partition(".") for part in cookies.get(COOKIE, "").split("_")]
        return found.with_({name: value for name, _, value in pairs})

    def with_(self, chosen: Mapping[str, Any]) -> Preferences:
        allowed: dict[str, Any] = {"language": LANGUAGES, "colours": COLOURS, "zone": ZONES, "theme": THEMES}
        return replace(self, **{k: v for k, v in chosen.items() if k in allowed and v in allowed[k]})

    @property
    def cookie(self) -> str:
        return "_".join(f"{name}.{value}" for name, value in asdict(self).items())

    @property
    def words(self) -> Words:
        return Words(self.language)

    @property
    def locale(self) -> str:
        return "ko-KR" if self.language == "ko" else "en-US"

    @property
    def tz(self) -> ZoneInfo:
        return ZoneInfo(ZONES[self.zone])

    @property
    def palette(self) -> dict[str, str]:
        return COLOURS[self.colours]

    def moment(self, at: datetime, seconds: bool = False) -> str:
        return f"{at.astimezone(self.tz):%m-%d %H:%M{':%S' if seconds else ''}} {self.zone}"
