"""Errors a user can cause, each one line that says what happened, where, and how to mend it."""


class RlsauditError(Exception):
    """Base of every expected error; ``exit_code`` is what the command line ends with."""

    exit_code = 3


class UsageError(RlsauditError):
    """The command, the configuration or the input is wrong (missing file, SQL that fails, unknown key)."""

    exit_code = 2


class NotTrustworthy(RlsauditError):
    """No verdict can be given: cannot connect, nothing to test, a probing session exempt from RLS."""

    exit_code = 3


class ServerLost(NotTrustworthy):
    """The server went away under a run, and is not back, or not as it was."""


class Leftovers(NotTrustworthy):
    """What was made on the user's own server could not be taken away again."""
