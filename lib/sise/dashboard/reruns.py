"""A page's live part asks to run again at each tick of its timer. When somebody goes to another page at that moment,
Streamlit (1.67, ScriptRequests) merges the two requests and keeps the page of the newer one: the change of page is
lost, or the new page stays empty. On a busy machine that is one click in three. Here such a request, which comes from a
page that the viewer has left, is dropped.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from streamlit.runtime.app_session import AppSession

__all__ = ["install"]


def install() -> None:
    """Once a process; calling it again changes nothing."""
    original = AppSession.request_rerun
    if getattr(original, "_sise", False):
        return

    @wraps(original)
    def request_rerun(self: AppSession, client_state: Any) -> None:
        if client_state is not None and client_state.page_script_hash:
            meant = getattr(self, "_sise_page", "")
            if not client_state.is_auto_rerun:
                self._sise_page = client_state.page_script_hash  # type: ignore[attr-defined]
            elif meant and client_state.page_script_hash != meant:
                return
        original(self, client_state)

    request_rerun._sise = True  # type: ignore[attr-defined]
    AppSession.request_rerun = request_rerun  # type: ignore[method-assign]
