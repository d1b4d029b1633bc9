"""The digest that every write is judged by: count and hash of each owner's rows, by functions in the scratch copy."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.ground.ownership import digested, only, owner
from rlsaudit.probe.ground.statement_text import name, said, text
from rlsaudit.probe.ground.world import SHARED, Tenant
from rlsaudit.tenancy.model import Tenancy

SCHEMA = "rlsaudit_oracle"
DIGEST = f"SELECT * FROM {SCHEMA}.digest()"
"""Of what the transaction has changed so far; of everything where its locks do not tell."""
_ELSEWHERE = frozenset({
    "dblink", "postgres_fdw", "pg_background", "pg_cron", "pljava", "plperlu", "plpython3u", "plsh", "pltclu",
})  # fmt: skip
"""Extensions by which a statement may have another session write, whose locks are not its own."""

_CHOSEN = f"""
DECLARE one bigint;
BEGIN
    FOR one IN
        SELECT found FROM unnest(COALESCE(wanted, ARRAY(
            SELECT substr(proname, 8)::bigint FROM pg_proc
            WHERE pronamespace = '{SCHEMA}'::regnamespace AND proname LIKE 'digest\\_%'
        ))) AS found
        WHERE to_regproc('{SCHEMA}.digest_' || found) IS NOT NULL ORDER BY found
    LOOP
        RETURN QUERY VALUES (one::text, NULL::text, NULL::text, NULL::text);
        RETURN QUERY EXECUTE 'SELECT * FROM {SCHEMA}.digest_' || one || '()';
    END LOOP;
END"""
# Whatever writes (statements, cascades, triggers, rules, functions, TRUNCATE, DDL) takes a stronger lock than these two and
# keeps it to the end of the transaction; it is given back before only where the write itself is undone.
_TOUCHED = f"""
BEGIN
    RETURN QUERY SELECT * FROM {SCHEMA}.digest(ARRAY(
        SELECT DISTINCT COALESCE(pg_partition_root(held.relation)::oid, held.relation)::bigint FROM pg_locks AS held
        WHERE held.pid = pg_backend_pid() AND held.locktype = 'relation'
        AND held.mode NOT IN ('AccessShareLock', 'RowShareLock')
    ));
END"""
_RELEASE = f"""
BEGIN
    IF to_regproc('{SCHEMA}.release_' || relation) IS NOT NULL THEN
        EXECUTE 'SELECT {SCHEMA}.release_' || relation || '()';
    END IF;
END"""
_VACATE = f"""
DECLARE one bigint;
BEGIN
    FOREACH one IN ARRAY relations LOOP
        IF to_regproc('{SCHEMA}.vacate_' || one) IS NOT NULL THEN
            EXECUTE 'SELECT {SCHEMA}.vacate_' || one || '($1)' USING $2;
        END IF;
    END LOOP;
END"""
_WHOLE = f"BEGIN RETURN QUERY SELECT * FROM {SCHEMA}.digest(NULL); END"

_ROWS = "TABLE (relation text, owner text, rows text, hash text)"
_SEES = "SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on"
_UNTRIGGERED = "SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET session_replication_role = replica"
_MESSAGE = 200
"""Functions that are made by one message."""

Connection = psycopg.Connection[tuple[object, ...]]


def digest_of(relations: Iterable[int] | None) -> str:
    """The digest of these relations, changed or not; of all for None."""
    wanted = "NULL" if relations is None else f"'{{{','.join(str(oid) for oid in sorted(relations))}}}'"
    return f"SELECT * FROM {SCHEMA}.digest({wanted}::bigint[])"


def release(relation: Relation) -> str:
    """A statement that removes every row that refers to ``relation``, so that a foreign key cannot stand in for a policy."""
    return f"SELECT {SCHEMA}.release({relation.oid})"


def vacate(relations: Iterable[Relation], tenant: str) -> str:
    """A statement that removes rows of the relations that are other tenants' than this one's, so that a unique key cannot
    stand in for a policy: first those that refer to others, whose owner is told by way of these."""
    listed = f"{{{','.join(str(relation.oid) for relation in relations)}}}"
    return said("SELECT {}.vacate({}, {})", sql.Identifier(SCHEMA), sql.Literal(listed), sql.Literal(tenant))


def install(connection: Connection, catalog: Catalog, tenancy: Tenancy, tenants: tuple[Tenant, ...]) -> None:
    """Create the functions: rows of ``(relation oid, owner text, count text, hash text)``, the OID alone ahead of them.

    They run as a superuser, so that all rows are seen inside the attacker's own transaction.  Each relation has functions
    of its own: one over thousands would be read anew by every session.
    """
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(sql.Identifier(SCHEMA)))
    made = []
    for relation in digested(catalog, tenancy):
        whose = owner(catalog, tenancy.of(relation.oid), tenants)
        made.append(_function(f"digest_{relation.oid}()", f"BEGIN RETURN QUERY {_counting(relation, whose)}; END"))
        others = said("DELETE FROM {} AS t WHERE {} <> $1;", name(relation), whose)
        made.append(_function(f"vacate_{relation.oid}(tenant text)", f"BEGIN {others} END", returns="void"))
        if children := referrers(catalog, relation):
            deletions = " ".join(said("DELETE FROM {};", name(child)) for child in children)
            made.append(_function(f"release_{relation.oid}()", f"BEGIN {deletions} END", returns="void"))
    by_others = catalog.foreign_servers or any(one.name in _ELSEWHERE for one in catalog.extensions)
    public = {
        "digest(wanted bigint[])": _function("digest(wanted bigint[])", _CHOSEN, definer=_SEES),
        "digest()": _function("digest()", _WHOLE if by_others else _TOUCHED, definer=_SEES),
        "release(relation bigint)": _function(
            "release(relation bigint)", _RELEASE, returns="void", definer=_UNTRIGGERED
        ),
        "vacate(relations bigint[], tenant text)": _function(
            "vacate(relations bigint[], tenant text)", _VACATE, returns="void", definer=_UNTRIGGERED
        ),
    }
    for at in range(0, len(made), _MESSAGE):
        connection.execute(";\n".join(made[at : at + _MESSAGE]).encode(), prepare=False)
    for signature, statement in public.items():
        connection.execute(statement.encode())
        # Default privileges may take EXECUTE on new functions from PUBLIC.
        connection.execute(f"GRANT EXECUTE ON FUNCTION {SCHEMA}.{signature} TO PUBLIC".encode())


def _counting(relation: Relation, whose: sql.Composable) -> str:
    return said(
        "SELECT {}::bigint::text, COALESCE({}, {}), count(*)::text, "
        "COALESCE(sum(hashtextextended(t::text, 0)), 0)::text FROM {}{} AS t GROUP BY 2",
        sql.Literal(relation.oid), whose, sql.Literal(SHARED), only(relation), name(relation),
    )  # fmt: skip


def _function(signature: str, body: str, *, returns: str = _ROWS, definer: str = "") -> str:
    quoted = text(sql.Literal(f"#variable_conflict use_column\n{body}"))
    return f"CREATE FUNCTION {SCHEMA}.{signature} RETURNS {returns} LANGUAGE plpgsql VOLATILE {definer} AS {quoted}"


def reach(catalog: Catalog, relation: Relation) -> frozenset[int] | None:
    """Relations whose rows a statement on ``relation`` can change: itself, its partition tree, and through foreign keys.

    None, meaning any, for a view and wherever a trigger or a rule may carry the change further.
    """
    found = {relation.oid}
    queue = [relation]
    while queue:
        one = queue.pop()
        near = (
            *(catalog.find_relation(oid) for oid in one.parents),
            *catalog.children_of(one.oid),
            *referrers(catalog, one),
        )
        for other in near:
            if other is not None and other.oid not in found:
                found.add(other.oid)
                queue.append(other)
    altered = any(catalog.triggers_of(oid) for oid in found) or any(rule.relation in found for rule in catalog.rules)
    return None if altered or not relation.holds_rows else frozenset(found)


def referrers(catalog: Catalog, relation: Relation) -> tuple[Relation, ...]:
    """Relations with a foreign key to ``relation``, and those that refer to them in turn."""
    found: dict[int, Relation] = {}
    queue = [relation.oid]
    while queue:
        for constraint in catalog.references_to(queue.pop()):
            child = catalog.find_relation(constraint.relation)
            if child and child.oid not in found and child.oid != relation.oid and not child.is_partition:
                found[child.oid] = child
                queue.append(child.oid)
    return tuple(found.values())
