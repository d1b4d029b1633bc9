"""The oracles: was something of another tenant seen (taint), or was something of another tenant changed (digest)?

Both are pure.  Taint needs no model of the query: a text that stands only in another tenant's rows, and that the
program did not itself contain, must not come out of a session.  Digest compares, per relation and owner, the count
and hash of all rows, read by a privileged identity in the attack's own transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rlsaudit.finding import Property
from rlsaudit.probe.ground.disguise import words
from rlsaudit.probe.ground.session import Reply, Transcript
from rlsaudit.probe.ground.world import SHARED, World, tokens

Channel = Literal["rows", "error", "notice", "digest", "outcome", "gone", "heard", "fed"]
Digest = Mapping[tuple[int, str], tuple[str, str]]
_NONE = ("0", "")
"""What stands for an owner without rows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """How a leak showed itself."""

    property: Property
    channel: Channel
    owner: str
    """Label of the tenant whose row it was; empty for rows shared by all tenants."""
    mark: str = ""
    """The foreign text that was seen."""
    relation: int = 0
    """OID of the relation that changed (digest)."""


def taint(replies: Iterable[Reply], notices: Iterable[str], world: World, actor: str, program: str) -> Evidence | None:
    """The first foreign mark in rows, errors or notices; ``actor`` is the label of the tenant acted for."""
    for reply in replies:
        for cell in (cell for row in reply.rows for cell in row if cell is not None):
            if mark := _foreign(cell, world, actor, program):
                return Evidence("read", "rows", world.marks[world.plain(mark)], mark)
        if reply.error and (mark := _foreign(reply.error, world, actor, program)):
            return Evidence("read", "error", world.marks[world.plain(mark)], mark)
    for notice in notices:
        if mark := _foreign(notice, world, actor, program):
            return Evidence("read", "notice", world.marks[world.plain(mark)], mark)
    return None


def foreign_key_seen(reply: Reply, position: int, actor: str, known: frozenset[str]) -> Evidence | None:
    """A row that carries another tenant's key in the column that shows it, whatever else stands in the row."""
    for row in reply.rows if position >= 0 else ():
        owner = row[position] if position < len(row) else None
        if owner is not None and owner != actor and owner in known:
            return Evidence("read", "rows", owner, owner)
    return None


def own_seen(transcript: Transcript, world: World, actor: str) -> bool:
    """True when a mark of ``actor`` itself stands in the rows."""
    cells = (cell for reply in transcript.replies for row in reply.rows for cell in row if cell is not None)
    return any(
        world.marks.get(world.plain(text)) == actor for cell in cells for text in (cell, *words(cell, tokens(cell)))
    )


def sources(reply: Reply, world: World, actor: str) -> Counter[int]:
    """Relation OID → how many foreign marks in the rows stand in it: the one they came from has the most."""
    found: Counter[int] = Counter()
    words = {word for row in reply.rows for cell in row if cell is not None for word in (cell, *tokens(cell))}
    for word in words:
        if world.marks.get(word, actor) not in (actor, SHARED):
            found.update(world.homes.get(word, ()))
    return found


def _foreign(text: str, world: World, actor: str, program: str) -> str:
    for word in (text, *words(text, tokens(text))):
        plain = world.plain(word)
        owner = world.marks.get(plain)
        if owner is None or owner in (actor, SHARED) or word in program:
            continue
        if plain == word or plain.lower() not in program.lower():  # of what the program named, any form may come back
            return word
    return ""


def parse_digest(reply: Reply) -> Digest:
    """Rows of the digest functions as a mapping; see ``digest.install``.  Each relation that was looked at has an entry."""
    return {
        (int(relation or 0), owner or SHARED): (count or "0", digest or "")
        for relation, owner, count, digest in reply.rows
    }


def looked_at(digest: Digest) -> frozenset[int]:
    return frozenset(relation for relation, _ in digest)


def changed(
    before: Digest, after: Digest, actor: str, known: frozenset[str], since: Digest | None = None, first: int = 0
) -> Evidence | None:
    """The first change to rows of another owner, in the relations that ``after`` looked at; to rows that all tenants share
    only where no tenant's own are changed.  ``first`` is the relation that is looked at before all others.

    More rows of a known other tenant is forgery (a row was made for it or moved to it); any other difference is a
    write.  Rows of owners that nobody knows (a freshly invented key) harm no tenant.  ``since`` is later than ``before``,
    and stands for it where it looked.
    """
    anew = looked_at(since or {})
    relations = sorted(looked_at(after), key=lambda relation: (relation != first, relation))
    places = [(relation, owner) for relation in relations for owner in sorted(known - {actor, SHARED})]
    places += [(relation, SHARED) for relation in relations if actor != SHARED]
    for place in places:
        relation, owner = place
        stood = since if since is not None and relation in anew else before
        old, new = (digest.get(place, _NONE) for digest in (stood, after))
        if old != new:
            grew = int(new[0]) > int(old[0])
            return Evidence("forge" if grew and owner != SHARED else "write", "digest", owner, relation=relation)
    return None


def differs(before: Digest, after: Digest, owner: str) -> bool:
    """Whether rows of this owner are not as before, in the relations that ``after`` looked at."""
    places = ((relation, owner) for relation in looked_at(after))
    return any(before.get(place, _NONE) != after.get(place, _NONE) for place in places)
