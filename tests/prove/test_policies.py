"""What tenancy inference and checks ask of a policy."""

import pytest

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import columns, comparisons, depends_on_row, is_volatile, subquery_relations
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import functions_called, policy_predicate, settings, settings_read

CTX = "NULLIF(current_setting('App.Tenant', true), '')"
POLICIES = {
    "plain": f"k = {CTX}",
    "wrapped": f"(SELECT {CTX}) = k",
    "cast": f"id::text = {CTX}",
    "lower": f"lower(k) = {CTX}",
    "like": f"k LIKE {CTX}",
    "in_list": f"k IN ({CTX}, 'x')",
    "constants": "k = 'é''\\' AND id = -7 AND f AND u = '00000000-0000-0000-0000-00000000000a'",
    "array": f"k = ANY (string_to_array({CTX}, ','))",
    "outer_function": "k = outer_one()",
    "opaque_function": "k = looked_up(k)",
    "member": "EXISTS (SELECT FROM m WHERE m.k = t.k AND m.u = current_setting('app.user'))",
    "nested": "id IN (SELECT max(m.id) FROM m WHERE EXISTS (SELECT FROM n WHERE n.k = t.k))",
    "unmodelled": "GREATEST(k, current_setting('app.greatest')) = 'x'",
    "volatile": "random() < 0.5",
    "uncorrelated": "EXISTS (SELECT FROM m)",
    "generated": f"copied = {CTX}",
}  # fmt: skip
SETUP = f"""
CREATE TABLE m (id int, k text, u text); CREATE TABLE n (k text);
CREATE FUNCTION inner_one() RETURNS text STABLE LANGUAGE plpgsql AS
  $$ DECLARE v text; BEGIN v := current_setting($x$app.inner$x$, true); RETURN v; END $$;
CREATE FUNCTION outer_one() RETURNS text STABLE LANGUAGE sql AS
  $$ SELECT COALESCE({CTX}, public."inner_one" ( )) $$;
CREATE FUNCTION looked_up(text) RETURNS text STABLE BEGIN ATOMIC
  SELECT k FROM m WHERE u = $1 LIMIT 1;
END;
CREATE TABLE t (id int NOT NULL, k text, u uuid, f boolean, copied text GENERATED ALWAYS AS (k) STORED);
"""


@pytest.fixture(scope="module")
def catalog(load) -> Catalog:
    statements = [f'CREATE POLICY "{name}" ON t USING ({text});' for name, text in POLICIES.items()]
    found: Catalog = load(SETUP + "".join(statements))
    return found


@pytest.fixture
def predicate(catalog: Catalog):
    def find(name: str) -> e.Expression:
        policy = next(policy for policy in catalog.policies if policy.name == name)
        assert policy_predicate(catalog, policy, "check") is None
        found = policy_predicate(catalog, policy, "using")
        assert found is not None
        return found

    return find


@pytest.mark.parametrize(
    ("name", "column", "operator", "exact"),
    [
        ("plain", "k", "=", True),
        ("wrapped", "k", "=", True),
        ("cast", "id", "=", True),
        ("lower", "k", "=", False),
        ("like", "k", "~~", False),
        ("in_list", "k", "=", True),
        ("array", "k", "=", True),
        ("outer_function", "k", "=", True),
        ("generated", "k", "=", True),
    ],
)
def test_comparisons(predicate, catalog: Catalog, name: str, column: str, operator: str, exact: bool) -> None:
    found = comparisons(predicate(name))[0]
    assert (found.column.name, found.operator, found.exact) == (column, operator, exact)
    assert "app.tenant" in settings(found.other, catalog)


def test_constants_are_decoded(predicate) -> None:
    values = {part.value for part in e.walk(predicate("constants")) if isinstance(part, e.Constant)}
    assert values == {"é'\\", "-7", "00000000-0000-0000-0000-00000000000a"}


def test_settings_through_functions(predicate, catalog: Catalog) -> None:
    assert settings(predicate("outer_function"), catalog) == {"app.tenant", "app.inner"}
    outer = next(f.oid for f in catalog.functions if f.name == "outer_one")
    assert settings_read(catalog, outer) == {"app.tenant", "app.inner"}
    assert functions_called(predicate("outer_function")) >= {outer}


def test_settings_inside_what_is_not_modelled(predicate, catalog: Catalog) -> None:
    assert settings(predicate("unmodelled"), catalog) == {"app.greatest"}
    assert columns(predicate("unmodelled")) == {"k"}


def test_relations_of_subqueries(predicate, catalog: Catalog) -> None:
    def names(name: str) -> set[str]:
        return {catalog.relation(oid).name for oid in subquery_relations(predicate(name))}

    assert names("member") == {"m"}
    assert names("nested") == {"m", "n"}
    assert names("opaque_function") == {"m"}
    assert names("plain") == set()


def test_dependence_on_the_row(predicate) -> None:
    assert depends_on_row(predicate("nested")) and depends_on_row(predicate("member"))
    assert not depends_on_row(predicate("uncorrelated"))
    assert is_volatile(predicate("volatile")) and not is_volatile(predicate("member"))


def test_an_unreadable_tree_is_opaque(catalog: Catalog) -> None:
    from dataclasses import replace

    policy = catalog.policies[0]
    for tree in ("", "{VAR}", "{OPEXPR :opno x}", "{VAR :varno 2 :varattno 1 :varlevelsup 0 :vartype 25}"):
        assert isinstance(policy_predicate(catalog, replace(policy, using_tree=tree), "using"), e.Opaque)


def test_a_user_collation_is_not_taken_for_equality(catalog: Catalog) -> None:
    from dataclasses import replace

    policy = next(policy for policy in catalog.policies if policy.name == "plain")
    assert policy.using_tree is not None
    tree = policy.using_tree.replace(":inputcollid 100", ":inputcollid 99999")
    predicate = policy_predicate(catalog, replace(policy, using_tree=tree), "using")
    assert isinstance(predicate, e.Compare) and not predicate.exact
