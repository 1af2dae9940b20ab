"""The errors a person can act on: each message names the thing, its value and the remedy."""

from contextlib import suppress

__all__ = ["ConfigError", "InputError", "ServiceError", "SiseError", "UsageError", "cause_of"]


class SiseError(Exception):
    """Something a person can mend. Jobs print it without a traceback and exit with 1."""


class ConfigError(SiseError):
    """A setting or a file in conf/ is wrong."""


class InputError(SiseError):
    """An argument or an input file is wrong."""


class UsageError(InputError):
    """An argument makes no sense, whatever the tables hold: exit code 2, and trying again does not help."""


class ServiceError(SiseError):
    """Kafka, Redis or PostgreSQL could not be started, reached or stopped."""


def cause_of(problem: BaseException) -> str:
    """What went wrong, in a line; of an error of the JVM the innermost cause, which is what somebody can act on."""
    name, text = type(problem).__name__, str(problem)
    with suppress(Exception):  # the JVM may be gone
        java = getattr(problem, "java_exception", None)
        while java is not None:
            name, text = java.getClass().getSimpleName(), java.getMessage() or text
            java = java.getCause()
    said = f"{name}: {next(iter(text.strip().splitlines()), '')}"
    if name.startswith("Concurrent"):  # Delta's words for it
        said += " (another run wrote the same table meanwhile: run this one again)"
    return said
