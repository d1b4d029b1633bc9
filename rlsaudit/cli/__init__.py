"""The command line: one file per command; ``main`` turns every expected error into one line and an exit code."""

from rlsaudit.cli.main import cli, main

__all__ = ["cli", "main"]
