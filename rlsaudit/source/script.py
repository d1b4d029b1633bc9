"""What an SQL script is made of: statements and backslash commands, and what persists between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Ending = Literal[";", "g", "gset", "gexec", "eof"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One query string as psql would send it, without the semicolon that ended it."""

    text: str
    file: str
    line: int
    """Where its first word stands, counted from 1."""
    copy_data: str | None = None
    """The lines that follow ``COPY … FROM stdin``, without the closing ``\\.``."""
    copy_line: int = 0
    ending: Ending = ";"
    """What sent it; ``gset`` and ``gexec`` ask for more than running it."""
    argument: str = ""
    """The prefix of ``\\gset``."""


@dataclass(frozen=True, slots=True)
class MetaCommand:
    """A backslash command that the one who executes must carry out or refuse."""

    name: str
    arguments: tuple[str, ...]
    rest: str
    """Everything up to the end of the line, as written."""
    file: str
    line: int


@dataclass(slots=True)
class Session:
    """What persists over the files of one run: psql variables and how the server reads backslashes."""

    variables: dict[str, str] = field(default_factory=dict)
    standard_conforming_strings: bool = True
