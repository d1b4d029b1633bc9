"""Idioms of real policies, each with the verdict it must get."""

import pytest

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.prove.prove import Proof, prove
from rlsaudit.tenancy.model import ApplicationRole, Classified, Tenancy

CTX = "NULLIF(current_setting('app.tenant_id', true), '')::uuid"
RAW = "current_setting('app.tenant_id', true)"
CLAIMS = "NULLIF(current_setting('request.jwt.claims', true), '')::jsonb"

# name: (policies after ON <table>, verdicts of SELECT, INSERT, UPDATE, DELETE: proven, refuted, unknown)
IDIOMS: dict[str, tuple[str | list[str], str]] = {
    "nullif_cast": (f"USING (tenant_id = {CTX})", "pppp"),
    "flipped": (f"USING ({CTX} = tenant_id)", "pppp"),
    "raw_cast_errors_on_empty": (f"USING (tenant_id = {RAW}::uuid)", "pppp"),
    "without_missing_ok": ("USING (tenant_id = current_setting('app.tenant_id')::uuid)", "pppp"),
    "text_of_key": (f"USING (tenant_id::text = {RAW})", "pppp"),
    "text_of_int_key": ("USING (int_key::text = current_setting('app.tenant_id', true))", "rrrr"),
    "case_closed": (f"USING (CASE WHEN {RAW} IS NULL THEN false ELSE tenant_id = {CTX} END)", "pppp"),
    "case_open": (f"USING (CASE WHEN {RAW} IS NULL THEN true ELSE tenant_id = {CTX} END)", "rrrr"),
    "coalesce_open": (f"USING (tenant_id = COALESCE({CTX}, tenant_id))", "rrrr"),
    "coalesce_false": (f"USING (COALESCE(tenant_id = {CTX}, false))", "pppp"),
    "coalesce_true": (f"USING (COALESCE(tenant_id = {CTX}, true))", "rrrr"),
    "unset_open": (f"USING ({RAW} IS NULL OR tenant_id = {CTX})", "rrrr"),
    "empty_open": (f"USING ({RAW} = '' OR tenant_id = {CTX})", "rrrr"),
    "public_rows": (f"USING (tenant_id = {CTX} OR is_public)", "rrrr"),
    "own_public_rows": (f"USING (tenant_id = {CTX} AND is_public)", "pppp"),
    "precedence": (f"USING (tenant_id = {CTX} AND is_public OR name = 'x')", "rrrr"),
    "true": ("USING (true)", "rrrr"),
    "false": ("USING (false)", "pppp"),
    "one_is_one": ("USING (1 = 1)", "rrrr"),
    "self_comparison": ("USING (tenant_id = tenant_id)", "rrrr"),
    "key_not_null": ("USING (tenant_id IS NOT NULL)", "rrrr"),
    "select_true": ("USING ((SELECT true))", "rrrr"),
    "context_only": (f"USING ({CTX} IS NOT NULL)", "rrrr"),
    "context_against_itself": (f"USING ({CTX} = {RAW}::uuid)", "rrrr"),
    "wrong_column": (f"USING (other_id = {CTX})", "rrrr"),
    "not_equal": (f"USING (tenant_id <> {CTX})", "rrrr"),
    "not_distinct": (f"USING (NOT tenant_id IS DISTINCT FROM {CTX})", "pppp"),
    "not_distinct_null_key": (f"USING (NOT null_key IS DISTINCT FROM {CTX})", "rrrr"),
    "double_negation": (f"USING (NOT (tenant_id <> {CTX}))", "pppp"),
    "subselect_wrapper": (f"USING (tenant_id = (SELECT {CTX}))", "pppp"),
    "like": (f"USING (tenant_id::text LIKE {RAW} || '%')", "rrrr"),
    "like_without_wildcard": (f"USING (tenant_id = {CTX} AND name LIKE 'x' AND NOT name LIKE 'x')", "pppp"),
    "like_of_a_constant": ("USING (name LIKE 'tenant' AND text_key = current_user)", "pppp"),
    "like_as_equality": (f"USING (text_key LIKE 'a' OR text_key = NULLIF({RAW}, ''))", "rrrr"),
    "lower": (f"USING (lower(tenant_id::text) = lower({RAW}))", "uuuu"),
    "lower_and_key": (f"USING (lower(name) = 'x' AND tenant_id = {CTX})", "pppp"),
    "modulo": ("USING (int_id % 4 = NULLIF(current_setting('app.tenant_id', true), '')::int % 4)", "rrrr"),
    "modulo_of_both": (f"USING (tenant_id = {CTX} AND int_id % 4 = 1)", "pppp"),
    "prefix": (f"USING (substr(text_key, 1, 1) = NULLIF({RAW}, ''))", "rrrr"),
    "pattern": (f"USING (text_key ~ NULLIF({RAW}, ''))", "rrrr"),
    "lower_of_text": (f"USING (lower(text_key) = lower(NULLIF({RAW}, '')))", "rrrr"),
    "lower_of_lower": (f"USING (lower(checked) = lower(NULLIF({RAW}, '')))", "pppp"),
    "same_function_of_the_key": (f"USING (md5(text_key) = md5({RAW}) AND text_key = NULLIF({RAW}, ''))", "pppp"),
    "function_that_is_not_known": (f"USING (md5(text_key) = md5(NULLIF({RAW}, '')))", "uuuu"),
    "holds_a_role": (f"USING (tenant_id = {CTX} OR pg_has_role('prove_group', 'USAGE'))", "rrrr"),
    "holds_another_role": (f"USING (tenant_id = {CTX} OR pg_has_role(current_user, 'auditor', 'MEMBER'))", "uuuu"),
    "holds_a_role_too": (f"USING (tenant_id = {CTX} AND pg_has_role('auditor', 'USAGE'))", "pppp"),
    "float": (f"USING (int_id::float8 = {RAW}::float8)", "uuuu"),
    "volatile_context": ("USING (tenant_id = volatile_tenant())", "pppp"),
    "raising_context": ("USING (tenant_id = raising_tenant())", "pppp"),
    "handled_context": ("USING (tenant_id = handled_tenant())", "uuuu"),
    "branching_context": ("USING (tenant_id = branching_tenant())", "rrrr"),
    "sql_function": ("USING (tenant_id = sql_tenant())", "pppp"),
    "atomic_function": ("USING (tenant_id = atomic_tenant())", "pppp"),
    "plpgsql_function": ("USING (tenant_id = plpgsql_tenant())", "pppp"),
    "function_in_subselect": ("USING (tenant_id = (SELECT sql_tenant()))", "pppp"),
    "function_of_key": ("USING (is_mine(tenant_id))", "pppp"),
    "opaque_function_of_key": ("USING (may_see(tenant_id))", "uuuu"),
    "immutable_context": ("USING (tenant_id = immutable_tenant())", "uuuu"),
    "function_with_setting": ("USING (tenant_id = fixed_tenant())", "uuuu"),
    "strict_function": (f"USING (tenant_id = same({CTX}))", "pppp"),
    "claims": (f"USING (tenant_id = ({CLAIMS} ->> 'tenant_id')::uuid)", "pppp"),
    "claims_function": ("USING (tenant_id = (SELECT claimed_tenant()))", "pppp"),
    "claims_or_role": (
        f"USING (tenant_id = ({CLAIMS} ->> 'tenant_id')::uuid OR {CLAIMS} ->> 'role' = 'x')",
        "uuuu",
    ),
    "in_list": (f"USING (tenant_id IN ({CTX}, {CTX}))", "pppp"),
    "in_two": (f"USING (tenant_id IN ({CTX}, current_setting('app.other', true)::uuid))", "rrrr"),
    "any_array": (f"USING (tenant_id = ANY (string_to_array({RAW}, ',')::uuid[]))", "pppp"),
    "list_with_more": (f"USING (tenant_id = ANY (string_to_array({RAW} || ',' || {RAW}, ',')::uuid[]))", "uuuu"),
    "list_of_all": ("USING (tenant_id = ANY (ARRAY(SELECT m.tenant_id FROM members m)))", "uuuu"),
    "list_or_all": (f"USING (tenant_id = ANY (string_to_array({RAW}, ',')::uuid[]) OR {RAW} = '*')", "rrrr"),
    "claims_list": (f"USING (({CLAIMS} -> 'tenants') ? tenant_id::text)", "pppp"),
    "claims_of_all": (f"USING ({CLAIMS} -> 'tenants' ? 'all' OR tenant_id = {CTX})", "uuuu"),
    "membership_in": (
        "USING (tenant_id IN (SELECT m.tenant_id FROM members m"
        " WHERE m.user_id = current_setting('app.user', true)))",
        "uuuu",
    ),
    "membership_exists": (
        "USING (EXISTS (SELECT FROM members m WHERE m.tenant_id = x.tenant_id AND m.user_id = 'u'))",
        "uuuu",
    ),
    "membership_and_key": (
        f"USING (tenant_id = {CTX} AND EXISTS (SELECT FROM members m WHERE m.tenant_id = x.tenant_id))",
        "pppp",
    ),
    "one_from_membership": (
        "USING (tenant_id = (SELECT m.tenant_id FROM members m"
        " WHERE m.user_id = NULLIF(current_setting('app.user', true), '')))",
        "pppp",
    ),
    "one_from_membership_of_an_empty_user": (
        "USING (tenant_id = (SELECT m.tenant_id FROM members m"
        " WHERE m.user_id = current_setting('app.user')))",
        "uuuu",
    ),
    "uncorrelated_exists": ("USING (EXISTS (SELECT FROM members))", "rrrr"),
    "constant_key": ("USING (tenant_id = '00000000-0000-0000-0000-000000000001')", "uuuu"),
    "role_is_key": ("USING (text_key = current_user)", "pppp"),
    "role_exception": (f"USING (tenant_id = {CTX} OR current_user = 'someone')", "uuuu"),
    "text_key": ("USING (text_key = NULLIF(current_setting('app.tenant_id', true), ''))", "pppp"),
    "text_key_empty": ("USING (text_key = current_setting('app.tenant_id', true))", "rrrr"),
    "null_key_rows": (f"USING (null_key = {CTX} OR null_key IS NULL)", "rrrr"),
    "nullable_key": (f"USING (null_key = {CTX})", "pppp"),
    "cast_of_column": (f"USING (tenant_id = {CTX} AND name::int > 0)", "upuu"),
    "cast_guarded": (f"USING (CASE WHEN tenant_id = {CTX} THEN name::int > 0 ELSE false END)", "pppp"),
    "admin_flag": (f"USING (tenant_id = {CTX} OR current_setting('app.is_admin', true) = 'on')", "rrrr"),
    "application_name": ("USING (text_key = current_setting('application_name'))", "uuuu"),
    "row_comparison": (f"USING (tenant_id = {CTX} OR (id, name) < (1, 'x'))", "uuuu"),
    "row_equality": (f"USING ((tenant_id, name) = ({CTX}, 'x'))", "pppp"),
    "row_in_list": (f"USING ((tenant_id, name) IN (({CTX}, 'x'), ({CTX}, 'y')))", "pppp"),
    "row_in_members": (
        "USING ((tenant_id, name) IN (SELECT m.tenant_id, m.user_id FROM members m))", "uuuu"
    ),
    "row_comparison_and_key": (f"USING (tenant_id = {CTX} AND NOT (id, name) < (1, 'x'))", "pppp"),
    "no_policy": ([], "pppp"),
    "only_restrictive": (f"AS RESTRICTIVE USING (tenant_id = {CTX})", "pppp"),
    "restrictive_bounds": (["USING (true)", f"AS RESTRICTIVE USING (tenant_id = {CTX})"], "pppp"),
    "restrictive_select_only": (
        ["USING (true)", f"AS RESTRICTIVE FOR SELECT USING (tenant_id = {CTX})"],
        "prrr",
    ),
    "permissive_widens": ([f"USING (tenant_id = {CTX})", "USING (is_public)"], "rrrr"),
    "another_role": ([f"USING (tenant_id = {CTX})", "TO auditor USING (true)"], "pppp"),
    "select_only": (f"FOR SELECT USING (tenant_id = {CTX})", "pppp"),
    "check_true": (f"USING (tenant_id = {CTX}) WITH CHECK (true)", "prrp"),
    "check_other_setting": (
        f"USING (tenant_id = {CTX}) WITH CHECK (tenant_id = current_setting('app.other', true)::uuid)",
        "purp",
    ),
    "update_using_true": (
        [f"FOR SELECT USING (tenant_id = {CTX})", f"FOR UPDATE USING (true) WITH CHECK (tenant_id = {CTX})"],
        "pprp",
    ),
    "delete_true": ([f"FOR SELECT USING (tenant_id = {CTX})", "FOR DELETE USING (true)"], "pppr"),
    "insert_not_null": (
        [f"FOR SELECT USING (tenant_id = {CTX})", "FOR INSERT WITH CHECK (tenant_id IS NOT NULL)"],
        "prpp",
    ),
    "hostile name\"; --": (f"USING (tenant_id = {CTX})", "pppp"),
}  # fmt: skip

SETUP = f"""
CREATE ROLE prove_app; CREATE ROLE auditor; CREATE ROLE prove_group; GRANT prove_group TO prove_app;
CREATE TABLE members (tenant_id uuid NOT NULL, user_id text NOT NULL);
CREATE FUNCTION sql_tenant() RETURNS uuid STABLE LANGUAGE sql AS $$ SELECT {CTX} $$;
CREATE FUNCTION atomic_tenant() RETURNS uuid STABLE BEGIN ATOMIC SELECT {CTX}; END;
CREATE FUNCTION plpgsql_tenant() RETURNS uuid STABLE LANGUAGE plpgsql AS $$
BEGIN
  RETURN {CTX}; -- the tenant
END $$;
CREATE FUNCTION volatile_tenant() RETURNS uuid VOLATILE LANGUAGE plpgsql AS
  $$ DECLARE t uuid; BEGIN t := {CTX}; RETURN t; END $$;
CREATE FUNCTION raising_tenant() RETURNS uuid STABLE LANGUAGE plpgsql AS
  $$ BEGIN IF {RAW} IS NULL OR {RAW} = '' THEN RAISE EXCEPTION 'no tenant'; END IF; RETURN {RAW}::uuid; END $$;
CREATE FUNCTION handled_tenant() RETURNS uuid STABLE LANGUAGE plpgsql AS
  $$ BEGIN RETURN {RAW}::uuid; EXCEPTION WHEN OTHERS THEN RETURN '00000000-0000-0000-0000-000000000001'; END $$;
CREATE FUNCTION branching_tenant() RETURNS uuid STABLE LANGUAGE plpgsql AS $$
DECLARE found uuid := '00000000-0000-0000-0000-000000000001';
BEGIN
  IF {RAW} <> '' THEN found := {CTX}; ELSIF {RAW} = '' THEN NULL; ELSE RETURN NULL; END IF;
  RETURN found;
END $$;
CREATE FUNCTION immutable_tenant() RETURNS uuid IMMUTABLE LANGUAGE sql AS $$ SELECT {CTX} $$;
CREATE FUNCTION fixed_tenant() RETURNS uuid STABLE LANGUAGE sql SET app.tenant_id = '' AS $$ SELECT {CTX} $$;
CREATE FUNCTION is_mine(t uuid) RETURNS boolean STABLE LANGUAGE sql RETURN t = {CTX};
CREATE FUNCTION may_see(t uuid) RETURNS boolean STABLE LANGUAGE plpgsql AS
  $$ BEGIN RETURN EXISTS (SELECT FROM members m WHERE m.tenant_id = t); END $$;
CREATE FUNCTION same(t uuid) RETURNS uuid IMMUTABLE STRICT LANGUAGE sql AS $$ SELECT t $$;
CREATE FUNCTION claims() RETURNS jsonb STABLE LANGUAGE sql AS
  $$ SELECT COALESCE(NULLIF(current_setting('request.jwt.claims', true), ''), '{{}}')::jsonb $$;
CREATE FUNCTION claimed_tenant() RETURNS uuid STABLE LANGUAGE sql AS
  $$ SELECT NULLIF(claims() -> 'app_metadata' ->> 'tenant_id', '')::uuid $$;
"""

KEYS = {
    "prefix": "text_key", "pattern": "text_key", "lower_of_text": "text_key", "lower_of_lower": "checked",
    "same_function_of_the_key": "text_key", "function_that_is_not_known": "text_key", "like_of_a_constant": "text_key",
    "like_as_equality": "text_key", "modulo": "int_id", "float": "int_id", "role_is_key": "text_key", "text_key": "text_key",
    "text_key_empty": "text_key", "application_name": "text_key", "null_key_rows": "null_key",
    "nullable_key": "null_key", "not_distinct_null_key": "null_key",
}  # fmt: skip


ALONE = {"claims", "claims_function", "claims_list", "one_from_membership"}
"""Bound to another setting than the usual form is."""


def schema() -> str:
    statements = [SETUP]
    for name, (policies, _) in IDIOMS.items():
        table = '"' + name.replace('"', '""') + '"'
        statements.append(
            f"CREATE TABLE {table} (id int, tenant_id uuid NOT NULL, other_id uuid NOT NULL, "
            " int_key int NOT NULL, int_id int NOT NULL, text_key text NOT NULL, null_key uuid,"
            " name text NOT NULL, checked text NOT NULL CHECK (checked <> '' AND checked = lower(checked)),"
            " is_public boolean NOT NULL);"
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; GRANT ALL ON {table} TO prove_app;"
        )
        for number, policy in enumerate([policies] if isinstance(policies, str) else policies):
            statements.append(
                f"CREATE POLICY p{number} ON {table} {policy.replace('x.tenant_id', table + '.tenant_id')};"
            )
    return "".join(statements)


@pytest.fixture(scope="module")
def proofs(load) -> dict[tuple[str, str], Proof]:
    catalog: Catalog = load(schema())
    role = catalog.role_named("prove_app")
    assert role is not None
    roles = (ApplicationRole(role.oid, role.name, "test"),)
    usual = next(relation for relation in catalog.relations if relation.name == "nullif_cast")
    found: dict[tuple[str, str], Proof] = {}
    for relation in catalog.relations:
        if relation.name in IDIOMS:
            key = KEYS.get(relation.name, "tenant_id")
            # One at a time: a schema whose relations read different settings gets no proof for the rarer
            # ones.
            # Beside the usual form, from which it is known which setting is the tenant's.
            keys = {relation.oid: key} if relation.name in ALONE else {usual.oid: "tenant_id", relation.oid: key}
            relations = {oid: Classified(oid, "tenant", "test", name) for oid, name in keys.items()}
            proofs = prove(catalog, Tenancy(relations, roles=roles), visibility_of(catalog))
            found |= {(relation.name, p.command): p for p in proofs if p.relation == relation.oid}
    return found


@pytest.mark.parametrize("name", IDIOMS)
def test_verdict(proofs: dict[tuple[str, str], Proof], name: str) -> None:
    found = [proofs[name, command] for command in COMMANDS]
    assert "".join(proof.verdict[0] for proof in found) == IDIOMS[name][1], [proof.reason for proof in found]


def test_a_refutation_names_its_witness(proofs: dict[tuple[str, str], Proof]) -> None:
    reason = proofs["public_rows", "SELECT"].reason
    assert "row 1.tenant_id = " in reason and ".is_public = true" in reason


def test_an_unknown_says_what_it_depends_on(proofs: dict[tuple[str, str], Proof]) -> None:
    assert "rows are bounded through public.members" in proofs["membership_in", "SELECT"].reason
    assert "may_see" in proofs["opaque_function_of_key", "SELECT"].reason


def test_rows_bound_to_another_setting_than_elsewhere_are_not_proven(load) -> None:
    tables = "".join(
        f"CREATE TABLE t{n} (tenant_id text NOT NULL); ALTER TABLE t{n} ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY p ON t{n} USING (tenant_id = NULLIF(current_setting('{setting}', true), ''));"
        for n, setting in enumerate(("app.tenant", "app.tenant", "app.requested"))
    )
    catalog: Catalog = load(tables + "CREATE ROLE other_app; ")
    role = catalog.role_named("other_app")
    assert role is not None
    relations = {r.oid: Classified(r.oid, "tenant", "test", "tenant_id") for r in catalog.relations}
    tenancy = Tenancy(relations, roles=(ApplicationRole(role.oid, role.name, "test"),))
    found = {
        (catalog.relation(p.relation).name, p.command): p.verdict
        for p in prove(catalog, tenancy, visibility_of(catalog))
    }
    assert found["t0", "SELECT"] == found["t1", "SELECT"] == "proven"
    assert found["t2", "SELECT"] == "unknown"
