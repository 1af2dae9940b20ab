"""Watchlists: rules over the shares of one session, and people's own lists."""
