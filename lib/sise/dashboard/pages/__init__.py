"""The pages: each has ``show(here)``, which draws it."""
