"""Signals: what fired, and what a trade on it would have made."""
