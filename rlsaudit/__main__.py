"""``python -m rlsaudit`` is the command line."""

from rlsaudit.cli import main

main()
