"""Secrets that this process has read, and texts without them."""

from __future__ import annotations

import logging
from urllib.parse import quote

__all__ = ["HideSecrets", "hide", "redact"]

_HIDDEN: set[str] = set()
_SHOWN = "***"


def hide(value: str) -> str:
    """Remembers a secret, so that ``redact`` takes it out of whatever is said from now on; gives it back."""
    if value:
        _HIDDEN.update({value, quote(value, safe=""), quote(value)})
    return value


def redact(text: str) -> str:
    """``text`` with every secret known to this process replaced by ***."""
    for value in sorted(_HIDDEN, key=len, reverse=True):  # the longer first: one secret may contain another
        text = text.replace(value, _SHOWN)
    return text


class HideSecrets(logging.Filter):
    """A filter for log handlers: the record's text, and its arguments, without secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        return True
