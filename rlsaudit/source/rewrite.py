"""What one statement must become before it can run in a scratch database, and what may not run at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rlsaudit.catalog.identifiers import quote
from rlsaudit.source.tokens import Token, tokens

_WATCHED = frozenset({"create", "drop", "alter", "grant", "revoke", "comment", "security", "copy"})
_ROLE_WORDS = frozenset({"role", "user", "group"})
_ROLE_HEADS = frozenset((word,) for word in _ROLE_WORDS)
_MEMBERSHIP = frozenset({"in", "role", "user", "admin"})
_PLAIN_ROLE = (
    "NOSUPERUSER NOCREATEDB NOCREATEROLE INHERIT NOREPLICATION NOBYPASSRLS CONNECTION LIMIT -1 PASSWORD NULL "
    "VALID UNTIL 'infinity'"
)
_TRANSACTION = frozenset({"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare"})


class Refused(Exception):
    """The statement reaches files, programs or other servers."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement ready to run; an empty ``text`` means that it is left out."""

    text: str
    note: str = ""
    words: tuple[str, ...] = ()
    """Its first three keywords."""
    to_client: bool = False
    """True of ``COPY … TO stdout``."""

    @property
    def controls_transaction(self) -> bool:
        """True of statements around which no savepoint may be put."""
        return self.words[:1] != () and (self.words[0] in _TRANSACTION or self.words[:2] == ("set", "transaction"))


def prepare(text: str, database: str, *, standard_strings: bool = True) -> Prepared:
    """Adapt a statement to the scratch database called ``database``.  Raises Refused."""
    reader = tokens(text, standard_strings=standard_strings)
    head = [token for _, token in zip(range(3), reader, strict=False)]
    words = tuple(token.word for token in head)
    if not words or words[0] not in _WATCHED:
        return Prepared(text, words=words)
    if words[0] == "copy":
        return Prepared(text, words=words, to_client=_copy_target([*head, *reader]) == "stdout")
    if words[1:2] == ("database",) and len(head) == 3:
        name = head[2].identifier
        if words[0] in ("create", "drop"):
            which = f" {quote(name)}" if name != "if" else ""
            return Prepared("", f"{words[0].upper()} DATABASE{which} is left out", words)
        if words[0] == "alter":
            return _alter_database(text, database, head, reader)
    if words[:2] == ("create", "subscription"):
        _check_subscription(reader)
    if words[0] in ("create", "drop") or (words[0] == "alter" and words[1:2] not in _ROLE_HEADS):
        return Prepared(text, words=words)
    names = list(_database_names([*head, *reader]))
    return Prepared(_renamed(text, names, database), _rename_note(names, database), words)


def created_role(text: str, *, standard_strings: bool = True) -> str | None:
    """The name that a CREATE ROLE, USER or GROUP statement gives; None for any other statement."""
    head = [token for _, token in zip(range(3), tokens(text, standard_strings=standard_strings), strict=False)]
    if len(head) == 3 and head[0].word == "create" and head[1].word in _ROLE_WORDS:
        return head[2].identifier
    return None


def role_as_alteration(text: str, *, standard_strings: bool = True) -> tuple[str, ...]:
    """Statements that give an existing role exactly what its CREATE ROLE would have given a new one."""
    found = list(tokens(text, standard_strings=standard_strings))
    name = quote(found[2].identifier)
    kept: list[str] = []
    grants: list[str] = []
    position = 3
    while position < len(found):
        word = found[position].word
        following = found[position + 1].word if position + 1 < len(found) else ""
        if word in _MEMBERSHIP:
            position += 2 if word == "in" else 1
            members, position = _names(found, position)
            listed = ", ".join(quote(member) for member in members)
            option = " WITH ADMIN OPTION" if word == "admin" else ""
            grants.append(f"GRANT {listed} TO {name}" if word == "in" else f"GRANT {name} TO {listed}{option}")
        elif word == "sysid":
            position += 2
        elif word == "with" or (word in ("encrypted", "unencrypted") and following == "password"):
            position += 1
        else:
            kept.append(text[found[position].start : found[position].end])
            position += 1
    login = "LOGIN" if found[1].word == "user" else "NOLOGIN"
    # Two statements, because an option may be given once only in each.
    first = f"ALTER ROLE {name} WITH {_PLAIN_ROLE} {login}"
    return (first, *([f"ALTER ROLE {name} WITH {' '.join(kept)}"] if kept else []), *grants)


def _names(found: Sequence[Token], position: int) -> tuple[list[str], int]:
    names = [found[position].identifier]
    position += 1
    while position + 1 < len(found) and found[position].text == ",":
        names.append(found[position + 1].identifier)
        position += 2
    return names, position


def _copy_target(found: Sequence[Token]) -> str:
    """``stdin``, ``stdout`` or empty.  Raises Refused when a COPY names a file or a program."""
    depth = 0
    for token, following in pairwise(found):
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0 and token.word in ("from", "to"):
            if following.kind == "string" or following.word == "program":
                raise Refused("COPY would read or write a file or a program; put the rows inline (FROM stdin)")
            if following.word in ("stdin", "stdout"):
                return following.word
    return ""


def _check_subscription(rest: Iterator[Token]) -> None:
    text = " ".join(token.text.lower() for token in rest)
    if not any(f"connect = {value}" in text for value in ("false", "off", "0", "'false'", "'off'")):
        raise Refused("CREATE SUBSCRIPTION would connect to another server; add WITH (connect = false)")


def _alter_database(text: str, database: str, head: list[Token], reader: Iterator[Token]) -> Prepared:
    words = tuple(token.word for token in head)
    action = [token.word for _, token in zip(range(2), reader, strict=False)]
    if action[:1] == ["rename"] or action == ["set", "tablespace"]:
        verb = " ".join(action).upper()
        return Prepared("", f"ALTER DATABASE {quote(head[2].identifier)} {verb} is left out", words)
    return Prepared(_renamed(text, head[2:], database), _rename_note(head[2:], database), words)


def _database_names(found: Sequence[Token]) -> Iterator[Token]:
    """The database names of GRANT, REVOKE, COMMENT, SECURITY LABEL and ALTER ROLE … IN DATABASE."""
    for position in range(1, len(found) - 1):
        if found[position].word == "database" and found[position - 1].word in ("on", "in"):
            yield found[position + 1]
            for comma, name in zip(found[position + 2 :: 2], found[position + 3 :: 2], strict=False):
                if comma.text != ",":
                    return
                yield name
            return


def _renamed(text: str, names: Sequence[Token], database: str) -> str:
    for name in reversed(names):
        text = text[: name.start] + quote(database) + text[name.end :]
    return text


def _rename_note(names: Sequence[Token], database: str) -> str:
    other = [quote(name.identifier) for name in names if name.identifier != database]
    return f"what is said of database {', '.join(other)} applies to the scratch database" if other else ""
