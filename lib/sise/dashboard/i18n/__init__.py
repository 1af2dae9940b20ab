"""The viewer's words, Korean and English: one catalogue each, with the same keys (a test)."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["LANGUAGES", "Words", "catalogue", "language_of"]

LANGUAGES = {"ko": "한국어", "en": "English"}


@cache
def catalogue(language: str) -> dict[str, str]:
    text = resources.files(__package__).joinpath(f"{language}.json").read_text(encoding="utf-8")
    found: dict[str, str] = json.loads(text)
    return found


def language_of(locale: str | None) -> str:
    """The catalogue for a browser's locale: ko for ko-KR, English for whatever there is no catalogue of."""
    return "ko" if (locale or "").lower().startswith("ko") else "en"


class Words:
    """``words("signals.last")``; a key that is missing is an error, not an empty page."""

    def __init__(self, language: str):
        self.language = language
        self._known = catalogue(language)

    def __call__(self, key: str, **values: Any) -> str:
        text = self._known[key]
        return text.format(**values) if values else text

    def rule(self, name: str) -> str:
        """A rule's name for people; one without an entry is called as its author did."""
        return self._known.get(f"rule.{name}", name)
