"""Policies that look alike share one reading; what a function reads stays what it is."""

from __future__ import annotations

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.policies import policy_predicate

SCHEMA = """
CREATE TABLE first (id int, kind int);
CREATE TABLE second (id int, kind int);
CREATE FUNCTION open_kind() RETURNS boolean LANGUAGE sql STABLE
  BEGIN ATOMIC SELECT EXISTS (SELECT FROM first WHERE kind = 1); END;
CREATE POLICY own ON first USING (EXISTS (SELECT FROM first x WHERE x.kind = first.id) AND open_kind());
CREATE POLICY own ON second USING (EXISTS (SELECT FROM second x WHERE x.kind = second.id) AND open_kind());
"""


def test_a_function_reads_the_same_relation_wherever_it_is_called(database) -> None:
    catalog = load_catalog(database(SCHEMA))
    names = {relation.oid: relation.name for relation in catalog.relations}
    for policy in catalog.policies:
        predicate = policy_predicate(catalog, policy, "using")
        assert predicate is not None
        (call,) = (part for part in e.walk(predicate) if isinstance(part, e.Call))
        assert call.inlined is not None
        assert {names[oid] for oid in e.subquery_relations(call.inlined)} == {"first"}
        (own,) = (part for part in e.walk(predicate) if isinstance(part, e.Subquery) and part not in set(e.walk(call)))
        assert {names[oid] for oid in own.relations} == {names[policy.relation]}
