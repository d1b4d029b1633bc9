"""The rows and settings of a model, as text that the server reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from uuid import UUID

from rlsaudit.prove import smt
from rlsaudit.prove.encode import Encoder, SettingsState
from rlsaudit.prove.smt import Term
from rlsaudit.prove.solver import Model
from rlsaudit.prove.values import kind_of, number_text

_BARE = re.compile(r"-?\d+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Witness:
    """Rows and settings that break a goal, as text; None is NULL, or a setting that was never set."""

    rows: tuple[tuple[str, int, tuple[tuple[str, str | None], ...]], ...] = ()
    """``row 1`` or the like, its relation (0: the one under test), and its columns."""
    settings: tuple[tuple[str, str | None], ...] = ()
    state: SettingsState = "any"
    """``null`` or ``empty``: all settings are."""

    def __str__(self) -> str:
        shown = [
            f"{label}.{name} = {_quoted(value)}"
            for label, _, columns in self.rows
            if label.startswith("row")
            for name, value in columns
        ]
        shown += [f"setting {name} = {_quoted(value)}" for name, value in self.settings]
        if self.state != "any":
            shown.append("every setting unset" if self.state == "null" else "every setting ''")
        return ", ".join(shown)


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    return value if value in ("true", "false") or _BARE.match(value) else f"'{value}'"


def witness_of(encoder: Encoder, model: Model) -> Witness:
    """Columns and settings of the model; every value is the solver's invention or a constant of a policy."""
    read = _Reader(model, frozenset(encoder.texts))
    rows: dict[str, list[tuple[str, str | None]]] = {}
    for (label, _), value in sorted(encoder.columns.items(), key=lambda item: item[0]):
        if label.startswith("row") or _holds(model, _active(encoder, label)):
            name = value.value.name
            rows.setdefault(label, []).append((name.removeprefix(f"{label}."), read.text(value.kind, name)))
    settings = sorted({n.removesuffix(" is null") for n in model.values if n.startswith("setting ")})
    return Witness(
        tuple((label, encoder.relations.get(label, 0), tuple(columns)) for label, columns in rows.items()),
        tuple((name.removeprefix("setting "), read.text("text", name)) for name in settings),
        encoder.state,
    )


def _active(encoder: Encoder, label: str) -> Term:
    return next((one.active for one in encoder.witnesses if label in dict(one.labels)), smt.FALSE)


def _holds(model: Model, term: Term) -> bool:
    """The value of a term of AND, OR, NOT over variables."""
    match term.operator:
        case "and":
            return all(_holds(model, one) for one in term.arguments)
        case "or":
            return any(_holds(model, one) for one in term.arguments)
        case "not":
            return not _holds(model, term.arguments[0])
    return term is smt.TRUE or bool(model.values.get(term.name, False))


class _Reader:
    """The texts of one model: different numbers are different texts."""

    def __init__(self, model: Model, constants: frozenset[str] = frozenset()) -> None:
        self.model = model
        self.constants = constants
        """Texts of the question, which have numbers of their own."""
        self.invented: dict[int, str] = {}

    def text(self, kind: str, name: str) -> str | None:
        """A value as the server would print it."""
        if self.model.values.get(f"{name} is null", False):
            return None
        found = self.model.values.get(name, 0)
        if kind == "boolean":
            return str(bool(found)).lower()
        if kind == "uuid":
            return str(UUID(int=found % 2**128))
        if kind == "integer":
            return str(found)
        text = number_text(found) if kind == "text" else None
        if text is None and found not in self.invented:
            forms = self._forms(found)
            taken = {*self.invented.values(), *self.constants}
            self.invented[found] = next(one for one in forms if one not in taken)
        return self.invented[found] if text is None else text

    def _forms(self, number: int) -> Iterator[str]:
        """Texts of which only is known what they read as."""
        for type_name in ("uuid", "smallint", "integer", "bigint", "boolean"):
            kind = kind_of(type_name)
            valid, parsed = (self.model.tables.get(one, {}) for one in (f"valid {type_name}", f"parse {kind}"))
            if valid.get(number, valid.get(None)) is True:
                value = parsed.get(number, parsed.get(None, 0))
                text = str(UUID(int=value % 2**128)) if kind == "uuid" else str(value).lower()
                printed = self.model.tables.get(f"print {kind}", {})
                # Another text than the one the value is printed as reads the same with blanks, or in braces.
                if printed.get(int(value), printed.get(None, number)) == number:
                    yield text
                yield from (f"{{{text}}}", text.replace("-", "")) if kind == "uuid" else ()
                yield from (" " * blanks + text for blanks in count(1))
        yield from (f"value {number + more}" for more in count())
