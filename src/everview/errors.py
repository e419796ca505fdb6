"""Errors that users see. Each knows the exit code with which the command line ends."""


class EverviewError(Exception):
    """Base of everything that a user can cause; the message says what to do about it."""

    exit_code = 2


class ConfigError(EverviewError, ValueError):
    """A setting or a call is wrong; the message says what to type instead (exit code 2)."""


class InputError(EverviewError, ValueError):
    """An input cannot be used; the message names the file or frame and why (exit code 3)."""

    exit_code = 3


class WeightsError(InputError):
    """A checkpoint is absent, damaged or of another network; names the key or byte."""


class MissingExtraError(EverviewError, ImportError):
    """An optional package is not installed; the message holds the exact pip line (exit code 4)."""

    exit_code = 4


class NotEnoughMemoryError(EverviewError, MemoryError):
    """The settings do not fit this machine; the message says what would fit (exit code 4)."""

    exit_code = 4
