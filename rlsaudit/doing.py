"""What a run is doing, for people who watch: a text with the particulars that a terminal shows beside it."""

from __future__ import annotations


class Doing(str):
    """A line of progress.  Logs print the text when it changes; a terminal shows the particulars too."""

    relation: str
    statements: int
    leaks: int

    def __new__(cls, layer: str, relation: str = "", statements: int = 0, leaks: int = 0) -> Doing:
        said = super().__new__(cls, layer)
        said.relation, said.statements, said.leaks = relation, statements, leaks
        return said
