"""Signals: live rules, detection, and what they turned out to be worth."""
