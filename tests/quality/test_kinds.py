"""Kinds of leak that only certain values, claims, rows or roles show: each planted, and beside it the nearest sound thing."""

from __future__ import annotations

import pytest

_INTEGER = "NULLIF(current_setting('app.tenant_id', true), '')::int"
_TEXT = "NULLIF(current_setting('app.tenant_id', true), '')"
_BASE = """
CREATE ROLE k_app LOGIN;
CREATE TABLE tenants (id {type} PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id {type} NOT NULL REFERENCES tenants, body text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants FOR SELECT USING (id = {own});
CREATE POLICY p ON docs USING (tenant_id = {own});
GRANT SELECT ON tenants TO k_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO k_app;
"""
NUMBERS = _BASE.format(type="int", own=_INTEGER)
LARGE = _BASE.format(type="bigint", own=_INTEGER.replace("int", "bigint"))
WORDS = _BASE.format(type="text", own=_TEXT)


def items(type_: str, condition: str, columns: str = "") -> str:
    """A third table under one policy."""
    return (
        f"CREATE TABLE items (id int PRIMARY KEY, tenant_id {type_}, note text NOT NULL{columns});"
        f"ALTER TABLE items ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON items USING ({condition});"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON items TO k_app;"
    )


def function(stored: str) -> str:
    return f"CREATE FUNCTION bodies() RETURNS SETOF text LANGUAGE sql STABLE {stored} AS 'SELECT body FROM docs';"


def view(options: str) -> str:
    return (
        f"CREATE VIEW mine {options} AS SELECT tenant_id, id, body FROM docs WHERE tenant_id = {_INTEGER};"
        "GRANT SELECT ON mine TO k_app;"
    )


def queue(granted: str) -> str:
    made = "CREATE TABLE outbox (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL, payload jsonb NOT NULL);"
    return f"{made} GRANT {granted} ON outbox TO k_app;"


_CLAIMS = "(NULLIF(current_setting('request.jwt.claims', true), '')::jsonb {} 'org')"
_LISTED = "tenant_id = ANY (string_to_array(NULLIF(current_setting('app.tenant_ids', true), ''), ',')::int[])"
_STEAL = (
    "CREATE TABLE parents (tenant_id int NOT NULL, id int NOT NULL, PRIMARY KEY (tenant_id, id));"
    "ALTER TABLE parents ENABLE ROW LEVEL SECURITY;"
    f"CREATE POLICY p ON parents USING (tenant_id = {_INTEGER}); GRANT SELECT ON parents TO k_app;"
    "CREATE TABLE items (id int PRIMARY KEY, tenant_id int NOT NULL, parent int NOT NULL, note text NOT NULL,"
    " FOREIGN KEY (tenant_id, parent) REFERENCES parents);"
    "ALTER TABLE items ENABLE ROW LEVEL SECURITY; GRANT SELECT, UPDATE ON items TO k_app;"
    f"CREATE POLICY s ON items FOR SELECT USING (tenant_id = {_INTEGER});"
    f"CREATE POLICY u ON items FOR UPDATE USING (%s) WITH CHECK (tenant_id = {_INTEGER});"
)
_GUARDED = f"CASE WHEN tenant_id = {_INTEGER} THEN COALESCE((meta ->> 'level')::int, 1) >= 0 ELSE false END"
_SLOW = "CREATE FUNCTION own() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN " + _INTEGER + "; END $$;"
_AT = ", at timestamptz NOT NULL DEFAULT now()"
_META = ", meta jsonb NOT NULL DEFAULT '{}'"

_WARNING = (
    "CREATE FUNCTION mine(k int, t text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN"
    f" IF k IS DISTINCT FROM {_INTEGER} THEN %s; RETURN false; END IF; RETURN true; END $$;"
)
_CACHE = (
    "CREATE TABLE cache (%s key text, payload text); CREATE FUNCTION report(p_key text) RETURNS text LANGUAGE plpgsql"
    f" SECURITY DEFINER SET search_path = public, pg_temp AS $$ DECLARE found_ text; me int := {_INTEGER}; BEGIN"
    " SELECT payload INTO found_ FROM cache WHERE %s key = p_key; IF found_ IS NULL THEN"
    " SELECT string_agg(body, ',') INTO found_ FROM docs WHERE tenant_id = me;"
    " INSERT INTO cache VALUES (%s p_key, COALESCE(found_, '-')); END IF; RETURN found_; END $$;"
)

_KEPT = (
    "CREATE TABLE acting (k text PRIMARY KEY, tenant_id int NOT NULL); CREATE FUNCTION act(p_tenant int) RETURNS void"
    " LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$ INSERT INTO acting VALUES (%s, p_tenant)"
    " ON CONFLICT (k) DO UPDATE SET tenant_id = EXCLUDED.tenant_id $$; CREATE FUNCTION actor() RETURNS int LANGUAGE sql"
    " STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$ SELECT tenant_id FROM acting WHERE k = %s $$;"
)

KINDS = {
    "list in a setting": (
        NUMBERS + items("int NOT NULL", _LISTED), NUMBERS + items("int NOT NULL", f"tenant_id = {_INTEGER}"),
        "medium", "lists two tenants",
    ),
    "name of the connection": (
        WORDS + items("text NOT NULL", "tenant_id = current_setting('application_name')"),
        WORDS + items("text NOT NULL", f"tenant_id = {_TEXT} AND current_setting('application_name') <> ''"),
        "high", "application_name",
    ),
    "claim that users edit": (
        WORDS + items("text NOT NULL", f"tenant_id = {_CLAIMS.format('-> ' + repr('user_metadata') + ' ->>')}"),
        WORDS + items("text NOT NULL", f"tenant_id = {_CLAIMS.format('-> ' + repr('app_metadata') + ' ->>')}"),
        "critical", "user_metadata",
    ),
    "setting of one table": (
        WORDS + items("text NOT NULL", "tenant_id = current_setting('app.asked', true)"),
        WORDS + items("text NOT NULL", f"tenant_id = {_TEXT} AND tenant_id = current_setting('app.asked', true)"),
        "critical", "app.asked alone",
    ),
    "part of a claim": (
        WORDS + items("text NOT NULL", f"position(tenant_id in {_CLAIMS.format('->>')}) > 0"),
        WORDS + items("text NOT NULL", f"tenant_id = {_CLAIMS.format('->>')}"),
        "critical", "items",
    ),
    "keys as double precision": (
        LARGE + items("bigint NOT NULL", "tenant_id = current_setting('app.tenant_id', true)::float8"),
        LARGE + items("bigint NOT NULL", "tenant_id = current_setting('app.tenant_id', true)::numeric"),
        "critical", "items",
    ),
    "function with a tenant": (NUMBERS + function("SET app.tenant_id = '2'"), NUMBERS + function("SET app.tenant_id = '0'"),
                               "critical", "bodies()"),
    "role with a tenant": (NUMBERS + "ALTER ROLE k_app SET app.tenant_id = '2';",
                           NUMBERS + "ALTER ROLE k_app SET app.tenant_id = '0';", "critical", "docs"),
    "view without a barrier": (NUMBERS + view(""), NUMBERS + view("WITH (security_barrier)"), "high", "mine"),
    "wrong column": (
        NUMBERS + items("int NOT NULL", f"region = {_INTEGER}", ", region int NOT NULL DEFAULT 1"),
        NUMBERS + items("int NOT NULL", f"tenant_id = {_INTEGER} AND region > 0", ", region int NOT NULL DEFAULT 1"),
        "critical", "items",
    ),
    "taking rows with their parents": (NUMBERS + _STEAL % "true", NUMBERS + _STEAL % f"tenant_id = {_INTEGER}",
                                       "critical", "changed rows of another tenant"),
    "queue without a key": (NUMBERS + queue("SELECT, INSERT"), NUMBERS + queue("INSERT"), "high", "outbox"),
    "line that a rule writes": (
        NUMBERS + "CREATE TABLE feed (line text); GRANT SELECT ON feed TO k_app;"
        "CREATE RULE r AS ON INSERT TO docs DO ALSO INSERT INTO feed VALUES (NEW.body);",
        NUMBERS + "CREATE TABLE feed (line text); GRANT SELECT ON feed TO k_app;"
        "CREATE RULE r AS ON INSERT TO docs DO ALSO INSERT INTO feed VALUES ('a document was made');",
        "critical", "feed",
    ),
    "warning of a policy": (
        NUMBERS + _WARNING % "RAISE WARNING 'not %', t" + items("int NOT NULL", "mine(tenant_id, note)"),
        NUMBERS + _WARNING % "NULL" + items("int NOT NULL", "mine(tenant_id, note)"),
        "critical", "printed in a notice",
    ),
    "answer kept for the next": (
        NUMBERS + _CACHE % ("", "", ""), NUMBERS + _CACHE % ("t int,", "t = me AND ", "me, "), "critical", "report",
    ),
    "hash of 32 bits": (WORDS + items("text NOT NULL", f"hashtext(tenant_id) = hashtext({_TEXT})"),
                        WORDS + items("text NOT NULL", f"hashtext(tenant_id) = hashtext({_TEXT}) AND tenant_id = {_TEXT}"),
                        "critical", "items"),
    "key cut short": (WORDS + items("text NOT NULL", f"tenant_id::name = {_TEXT}::name"),
                      WORDS + items("text NOT NULL", f"tenant_id::text = {_TEXT}"), "critical", "items"),
    "context under the backend's number": (
        NUMBERS + _KEPT % (2 * ("pg_backend_pid()::text",)) + items("int NOT NULL", "tenant_id = actor()"),
        NUMBERS + _KEPT % (2 * ("pg_current_xact_id()::text",)) + items("int NOT NULL", "tenant_id = actor()"),
        "critical", "after another tenant's visit",
    ),
    "rows grown old": (
        NUMBERS + items("int NOT NULL", f"tenant_id = {_INTEGER} OR at < now() - interval '90 days'", _AT),
        NUMBERS + items("int NOT NULL", f"tenant_id = {_INTEGER} AND at < now() + interval '900 years'", _AT),
        "critical", "items",
    ),
    "rows without a key": (
        NUMBERS + items("int", f"tenant_id IS NOT DISTINCT FROM {_INTEGER}"), NUMBERS + items("int", f"tenant_id = {_INTEGER}"),
        "high", "belong to no tenant",
    ),
    "rows with an empty key": (
        _BASE.format(type="text", own="current_setting('app.tenant_id', true)"), WORDS, "medium", "belong to no tenant",
    ),
    "text where a policy casts": (
        NUMBERS + _SLOW + items("int NOT NULL", "tenant_id = own() AND COALESCE((meta ->> 'level')::int, 1) >= 0", _META),
        NUMBERS + items("int NOT NULL", _GUARDED, _META), "high", "printed in its error message",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_found_and_replays(schema, kind) -> None:
    planted, _, severity, said = KINDS[kind]
    found = [f for f in schema(planted).probe().findings if said in f.message]
    assert (severity, True) in [(f.severity, f.confirmed) for f in found]


@pytest.mark.parametrize("kind", KINDS)
def test_sound_neighbour_is_not_told(schema, kind) -> None:
    assert [f.message for f in schema(KINDS[kind][1]).probe().findings] == []


_ROLES = """
CREATE ROLE k_group; CREATE ROLE k_one LOGIN; CREATE ROLE k_two LOGIN; CREATE ROLE k_pool LOGIN NOINHERIT;
GRANT k_group TO k_one, k_two;
CREATE TABLE orders (owner_role name NOT NULL DEFAULT current_user, id int NOT NULL, note text NOT NULL, PRIMARY KEY (owner_role, id));
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON orders TO k_group USING (owner_role = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO k_group;
"""


@pytest.mark.parametrize(("taken", "told"), [("k_one, k_two", [("k_pool", "medium", True)]), ("k_one", [])])
def test_pool_that_takes_the_roles_of_tenants(schema, taken, told) -> None:
    found = schema(f"{_ROLES} GRANT {taken} TO k_pool;").probe().findings
    assert [(f.role, f.severity, f.confirmed) for f in found] == told
