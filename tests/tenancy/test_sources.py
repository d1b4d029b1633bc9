"""What policies say of context where their conditions look alike."""

from __future__ import annotations

from rlsaudit.catalog.expression import relations_read
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.tenancy.sources import read

ROOTED = (
    "(owner_ref = current_setting('app.user_id')::int OR EXISTS (SELECT FROM {table} a"
    " WHERE a.user_id = current_setting('app.user_id')::int AND a.name = 'root'))"
)
ACCOUNTS = """
CREATE TABLE {table} (id int PRIMARY KEY, owner_ref int NOT NULL, user_id int NOT NULL, name text);
CREATE POLICY made ON {table} FOR INSERT WITH CHECK {condition};
"""


def test_a_condition_that_reads_its_own_relation_and_one_that_reads_another(schema) -> None:
    condition = ROOTED.format(table="accounts")
    loaded = schema(
        ACCOUNTS.format(table="accounts", condition=condition)
        + "CREATE TABLE documents (id int PRIMARY KEY, owner_ref int NOT NULL, body text);"
        + f"CREATE POLICY own ON documents USING {condition};"
    )
    (accounts,), (documents,) = (loaded.catalog.relations_named(name)["public"] for name in ("accounts", "documents"))
    said = read(loaded.catalog)
    assert {use.column for use in said.uses_of(documents.oid)} == {"owner_ref"}
    assert {use.column for use in said.uses_of(accounts.oid) if use.column} == {"owner_ref", "user_id", "name"} - {
        "name"
    }
    assert accounts.oid in said.consulted


def test_each_of_two_that_look_alike_reads_itself(schema) -> None:
    loaded = schema(
        "".join(
            ACCOUNTS.format(table=table, condition=ROOTED.format(table=table)) for table in ("accounts", "partners")
        )
    )
    for policy in loaded.catalog.policies:
        predicate = policy_predicate(loaded.catalog, policy, "check")
        assert predicate is not None
        assert set(relations_read(predicate)) == {policy.relation}


def test_a_quote_in_a_string_hides_no_relation(schema) -> None:
    loaded = schema(
        """
        CREATE TABLE "api$keys" (key text PRIMARY KEY, org int NOT NULL);
        CREATE TABLE "Odd keys" (key text PRIMARY KEY, org int NOT NULL);
        CREATE TABLE docs (id int PRIMARY KEY, org int NOT NULL);
        CREATE FUNCTION current_org() RETURNS int LANGUAGE plpgsql STABLE AS $$
        DECLARE v text := current_setting('app.api_key', true); r int;
        BEGIN
            RAISE DEBUG 'key "%', v;
            SELECT k.org INTO r FROM api$keys k WHERE k.key = v;
            SELECT k.org INTO r FROM "Odd keys" k WHERE k.key = v;
            RETURN r;
        END $$;
        CREATE POLICY own ON docs USING (org = current_org());
        """
    )
    said = read(loaded.catalog)
    for name in ("api$keys", "Odd keys"):
        (relation,) = loaded.catalog.relations_named(name)["public"]
        assert {use.column for use in said.uses_of(relation.oid)} == {"key"}
