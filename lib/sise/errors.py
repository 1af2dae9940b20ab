"""The errors a person can act on: each message names the thing, its value and the remedy."""

__all__ = ["ConfigError", "InputError", "ServiceError", "SiseError", "UsageError"]


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
