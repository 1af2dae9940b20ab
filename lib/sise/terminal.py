"""What the commands of ``sise`` share: the console, and errors as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from sise.errors import SiseError

__all__ = ["console", "guarded"]


def console() -> Console:
    # Piped output is for other programs: one line a row, however wide.
    return Console(width=None if sys.stdout.isatty() else 240)


def guarded(waiting: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Errors a person can mend come as one line; anything longer than a moment shows that it works."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            errors = Console(stderr=True)
            try:
                with errors.status(waiting):
                    command(*args, **kwargs)
            except SiseError as problem:
                errors.print(f"[red]sise: {escape(str(problem))}[/red]", soft_wrap=True)
                raise typer.Exit(1) from None

        return run

    return decorate
