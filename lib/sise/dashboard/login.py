"""Who is looking: where Streamlit's OIDC is configured, nobody sees a page before logging in."""

from __future__ import annotations

import os
from collections.abc import Mapping

import streamlit as st

from sise.dashboard.formats import escaped
from sise.dashboard.i18n import Words
from sise.dashboard.launch import GUARD, check_access, providers, secrets_files
from sise.errors import SiseError
from sise.settings import Settings

__all__ = ["allowed", "let_in"]


def allowed(user: Mapping[str, object], settings: Settings) -> bool:
    """Whether a user who logged in may look: anybody the provider knows, or those SISE_DASHBOARD_USERS names, whose
    address the provider has verified. Some providers say "true", some nothing at all (then it is theirs to know)."""
    if not settings.dashboard_users:
        return True
    email = str(user.get("email") or "").casefold()
    return email in settings.dashboard_users and user.get("email_verified", True) in (True, "true")


def let_in(words: Words, settings: Settings) -> bool:
    """True where the page may be shown; else the login stands in its place, or what has to be configured first."""
    guard = os.environ.get(GUARD)
    if guard is None:  # started by streamlit itself: nobody has looked yet at whom it lets in
        try:
            guard = check_access(str(st.get_option("server.address") or "0.0.0.0"), settings, secrets_files())
        except SiseError as problem:
            st.error(f"{words('error.start')}\n\n{escaped(str(problem))}", icon=":material/error:")
            return False
    if guard != "oidc":
        return True
    if not st.user.is_logged_in:
        st.title("sise", anchor=False)
        for name in providers(secrets_files()):
            label = words("login.do") if name == "default" else words("login.with", name=escaped(name))
            st.button(label, on_click=st.login, args=(name,), type="primary", icon=":material/login:", key=f"in-{name}")
        return False
    if not allowed(st.user.to_dict(), settings):
        st.error(words("login.refused", who=escaped(str(st.user.get("email") or ""))), icon=":material/block:")
        st.button(words("login.out"), on_click=st.logout)
        return False
    return True
