"""Tables without a tenant key that hold tenant data all the same: copies, logs and queues."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlsaudit.checks._routines import relations_read, tokens

from rlsaudit.catalog.outcome import ways
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.check import Subject, kept
from rlsaudit.finding import Severity

_COPY = frozenset(
    {
        "archive", "archived", "audit", "backup", "bak", "bck", "bkp", "cache", "cached", "changelog", "changes", "clone",
        "copy", "deleted", "dump", "export", "exported", "hist", "history", "import", "imported", "journal", "log",
        "logs", "mirror", "new", "old", "orig", "original", "raw", "replica", "restore", "rev", "revision", "revisions",
        "search", "shadow", "snap", "snapshot", "snapshots", "stage", "staging", "stg", "temp", "tmp", "trash", "version",
        "versions",
    }
)  # fmt: skip
"""What is added to a table's name to name a copy of it."""
_NUMBERED = re.compile(r"v?\d+\Z")
_FEED = re.compile(
    r"(^|_)(outbox|inbox|events?|queues?|logs?|audits?|auditlog|eventlog|webhooks?|messages?|notifications?|changes?|changelog"
    r"|history|deliver(y|ies)|dead_?letters?|dlq|activit(y|ies)|feed|journal|payloads?|snapshots?)(_|$)"
)
_PAYLOAD_NAME = re.compile(
    r"^(payload|body|data|content|contents|message|msg|args|arguments|params|parameters|detail|details|event|record|document"
    r"|snippet|text|value|values|(old|new)(_\w+)?|row|row_\w+|\w+_(data|payload|body|row|record|json)|before|after|diff|changes)$"
)
_DOCUMENTS = frozenset({"json", "jsonb", "hstore", "xml", "tsvector"})
_WORDS = frozenset({"text", "character varying", "bytea"})
_EVERYWHERE = frozenset(
    {
        "active", "code", "comment", "created", "created_at", "created_by", "deleted_at", "description", "enabled", "id",
        "inserted_at", "key", "kind", "label", "locale", "name", "position", "slug", "sort", "status", "title", "type",
        "updated", "updated_at", "updated_by", "uuid", "value", "version",
    }
)  # fmt: skip
"""Column names that say nothing of what a table is about."""


def without_key(subject: Subject) -> Iterator[Relation]:
    """Relations with rows of their own, no row security (or none that counts) and no known tie to a tenant."""
    if not subject.tenancy.key_columns:
        return
    for relation in subject.catalog.relations:
        kind = subject.tenancy.of(relation.oid).kind
        declared = subject.tenancy.of(relation.oid).declared
        if kind not in ("unclassified", "global") or declared or relation.extension or relation.is_partition:
            continue
        if relation.holds_rows and relation.kind != "foreign table" and not _kept_apart(subject, relation):
            yield relation


def _kept_apart(subject: Subject, relation: Relation) -> bool:
    """Whether row security is on and no policy admits every row to an application role that reads."""
    if not relation.rls_enabled:
        return False
    for role in subject.tenancy.roles:
        policies = subject.visibility.policies(role.oid, relation, "SELECT")
        if not all(one.permissive for one in policies) or not subject.visibility.may(role.oid, relation, "SELECT"):
            continue
        for policy in policies:
            condition = policy_predicate(subject.catalog, policy, "using")
            if condition is not None and ways(condition) == (frozenset(),):
                return False
    return True


def evidence(subject: Subject, relation: Relation) -> tuple[str, Severity] | None:
    """Why a relation without a key holds tenant data, and how bad it is when an application role reads it."""
    source, filled, column = copied_from(subject, relation), filled_by(subject, relation), payload(relation)
    if source is not None:
        return f"by its name and columns it is a copy of {source.qualified}", "high"
    if filled and (column is not None or shares_text(subject, relation)):
        return f"{filled} writes tenant data into it", "high"
    if column is None or not is_feed(relation):
        return None
    if any(subject.visibility.may(role.oid, relation, "INSERT") for role in subject.tenancy.roles):
        return f"it takes whole records in {column.name}", "high"
    return f"it has whole records in {column.name}, though nothing here shows who writes them", "low"


def copied_from(subject: Subject, relation: Relation) -> Relation | None:
    """The tenant relation that it is a copy of, by its name and columns."""
    base, named = _base(relation.name), not _COPY.isdisjoint(_words(relation.schema))
    if base is None and named:
        base = _words(relation.name)
    if base is None:
        return None
    mine = {(column.name, column.base_type) for column in relation.columns}
    for oid in _by_name(subject).get(base, ()):
        source = subject.catalog.relation(oid)
        common = mine & {(column.name, column.base_type) for column in source.columns}
        if {name for name, _ in common} - _EVERYWHERE or (len(common) > 1 and len(common) == len(mine)):
            return source
        if (common or named) and any(column.base_type in _DOCUMENTS for column in relation.columns):
            return source
    return None


def filled_by(subject: Subject, relation: Relation) -> str:
    """The trigger, rule or routine that writes tenant data into it; empty for none."""
    return _filling(subject).get(relation.oid, "")


def payload(relation: Relation) -> Column | None:
    """A column that takes whole records or messages."""
    for column in relation.columns:
        if column.base_type in _DOCUMENTS:
            return column
    named = (c for c in relation.columns if c.base_type in _WORDS and _PAYLOAD_NAME.match(c.name.lower()))
    return next(named, None)


def is_feed(relation: Relation) -> bool:
    """Whether its name says outbox, event, log or the like."""
    return bool(_FEED.search(_snake(relation.name)))


def shares_text(subject: Subject, relation: Relation) -> bool:
    """Whether a text column bears the name of a tenant relation's text column."""
    mine = {c.name for c in relation.columns if c.base_type in _WORDS} - _EVERYWHERE
    return any(
        column.name in mine and column.base_type in _WORDS
        for oid in subject.tenancy.tenant_data()
        for column in subject.catalog.relation(oid).columns
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _words(name: str) -> tuple[str, ...]:
    parts = (part for part in re.split(r"[^a-z0-9]+", _snake(name)) if part)
    return tuple(re.sub(r"(?<=[a-z])(?<!s)s$", "", part) for part in parts)


def _base(name: str) -> tuple[str, ...] | None:
    """``orders_backup_2024`` → ``order``; None for a name that says nothing of a copy."""
    found = _words(name)
    rest = tuple(w for w in found if w not in _COPY and f"{w}s" not in _COPY and not _NUMBERED.match(w))
    return rest if rest and len(rest) < len(found) else None


@kept
def _by_name(subject: Subject) -> dict[tuple[str, ...], list[int]]:
    found: dict[tuple[str, ...], list[int]] = {}
    for oid in subject.tenancy.tenant_data():
        relation = subject.catalog.relation(oid)
        if relation.holds_rows:
            found.setdefault(_words(relation.name), []).append(oid)
    return found


def named_as(subject: Subject, name: str) -> list[int]:
    """Tenants' relations of that name, in the singular or the plural."""
    return _by_name(subject).get(_words(name), [])


@kept
def _filling(subject: Subject) -> dict[int, str]:
    """Relation → what writes into it while it reads tenant data."""
    found: dict[int, str] = {}
    catalog, tenant = subject.catalog, set(subject.tenancy.tenant_data())
    for rule in catalog.rules:
        if rule.relation in tenant:
            for oid in _written(subject, rule.definition):
                found.setdefault(oid, f"rule {rule.name} on {catalog.relation(rule.relation).qualified}")
    triggered: dict[int, str] = {}
    for trigger in catalog.triggers:
        if trigger.relation in tenant and trigger.enabled != "disabled":
            where = catalog.relation(trigger.relation).qualified
            triggered.setdefault(trigger.function, f"trigger {trigger.name} on {where}")
    for function in catalog.functions:
        if function.extension:
            continue
        who = triggered.get(function.oid)
        written = _written(subject, function.source)
        if written and (who or any(relation.oid in tenant for relation in relations_read(subject, function))):
            for oid in written:
                found.setdefault(oid, who or function.signature)
    return found


@kept
def _by_plain_name(subject: Subject) -> dict[str, list[Relation]]:
    found: dict[str, list[Relation]] = {}
    for relation in subject.catalog.relations:
        if relation.holds_rows:
            found.setdefault(relation.name, []).append(relation)
    return found


def _written(subject: Subject, text: str) -> list[int]:
    """Relations after INSERT INTO or MERGE INTO."""
    if "into" not in text.lower():
        return []
    names = _by_plain_name(subject)
    found: list[int] = []
    said = tokens(text)
    for at, token in enumerate(said[:-2]):
        if not token.is_word("insert", "merge") or not said[at + 1].is_word("into"):
            continue
        schema, name = "", said[at + 2].text
        if at + 4 < len(said) and said[at + 3].is_symbol("."):
            schema, name = name, said[at + 4].text
        found += [one.oid for one in names.get(name, ()) if schema in ("", one.schema)]
    return found
