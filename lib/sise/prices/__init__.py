"""Bars on their way into the lake: quality at the door, corporate actions, adjusted prices."""
