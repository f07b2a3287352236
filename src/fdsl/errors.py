"""Errors a user can mend. The command line shows their message alone, without a traceback."""


class FDSLError(Exception):
    """Something outside the program is not as it must be; the message says what, where and how to mend it."""


class InterruptedRunError(FDSLError):
    """A run that a person stopped; the message says how to go on with it."""


class ConfigError(FDSLError, ValueError):
    """A configuration that cannot be run."""
