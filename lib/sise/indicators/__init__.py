"""Indicators: defined once in the registry, evaluated over history, over the day and at the tick."""
