"""Who is looking: where Streamlit's OIDC is configured, nobody sees a page before logging in."""

from __future__ import annotations

import os
from collections.abc import Mapping

import streamlit as st

from sise.dashboard.formats import escaped
from sise.dashboard.i18n import Words
from sise.settings import Settings

__all__ = ["allowed", "let_in"]


def allowed(user: Mapping[str, object], settings: Settings) -> bool:
    """Whether a user who logged in may look: anybody the provider knows, or those SISE_DASHBOARD_USERS names, whose
    address the provider has verified."""
    if not settings.dashboard_users:
        return True
    email = str(user.get("email") or "").casefold()
    return bool(email) and user.get("email_verified", True) is not False and email in settings.dashboard_users


def let_in(words: Words, settings: Settings) -> bool:
    """True where the page may be shown; else the login stands in its place."""
    if os.environ.get("SISE_DASHBOARD_GUARD") != "oidc":
        return True
    if not st.user.is_logged_in:
        st.title("sise", anchor=False)
        st.button(words("login.do"), on_click=st.login, type="primary", icon=":material/login:")
        return False
    if not allowed(st.user.to_dict(), settings):
        st.error(words("login.refused", who=escaped(str(st.user.get("email") or ""))), icon=":material/block:")
        st.button(words("login.out"), on_click=st.logout)
        return False
    return True
