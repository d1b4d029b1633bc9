"""Policies that look rows up: members, parents, and functions that do; each sound form beside one that leaks."""

import pytest

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.prove.prove import Proof, prove
from rlsaudit.tenancy.infer import Declared, infer

ME = "NULLIF(current_setting('app.user_id', true), '')::int"
SETUP = f"""
CREATE ROLE look_app LOGIN;
CREATE TABLE orgs (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL);
CREATE TABLE members (org_id int NOT NULL REFERENCES orgs, user_id int NOT NULL REFERENCES users, role text NOT NULL,
  PRIMARY KEY (org_id, user_id));
CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs, name text NOT NULL);
CREATE TABLE tasks (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects, body text NOT NULL);
ALTER TABLE orgs ENABLE ROW LEVEL SECURITY; ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE members ENABLE ROW LEVEL SECURITY; ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION my_orgs() RETURNS SETOF int STABLE SECURITY DEFINER LANGUAGE sql SET search_path = '' AS
  $$ SELECT m.org_id FROM public.members m WHERE m.user_id = {ME} $$;
CREATE FUNCTION my_orgs_as(wanted text) RETURNS SETOF int STABLE SECURITY DEFINER LANGUAGE plpgsql SET search_path = '' AS
  $$ BEGIN IF {ME} IS NOT NULL THEN
       RETURN QUERY SELECT m.org_id FROM public.members m WHERE m.user_id = {ME} AND m.role LIKE wanted; RETURN;
     END IF; RETURN; END $$;
CREATE FUNCTION is_member(org int) RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql SET search_path = '' AS
  $$ SELECT EXISTS (SELECT 1 FROM public.members m WHERE m.org_id = org AND m.user_id = {ME}) $$;
CREATE FUNCTION is_anyone(org int) RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql SET search_path = '' AS
  $$ SELECT EXISTS (SELECT 1 FROM public.members m WHERE m.org_id = m.org_id AND m.user_id = {ME}) $$;
CREATE FUNCTION counted(org int) RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql SET search_path = '' AS
  $$ SELECT EXISTS (SELECT count(*) FROM public.members m WHERE m.org_id = org AND m.user_id = {ME}) $$;
CREATE FUNCTION shadowed(org int) RETURNS boolean STABLE LANGUAGE sql AS
  $$ SELECT EXISTS (SELECT 1 FROM members m WHERE m.org_id = org AND m.user_id = {ME}) $$;
CREATE POLICY own ON orgs FOR SELECT USING (id IN (SELECT m.org_id FROM members m WHERE m.user_id = {ME}));
CREATE POLICY self ON users FOR SELECT USING (id = {ME});
CREATE POLICY mine ON members FOR SELECT USING (user_id = {ME});
GRANT SELECT ON orgs, users, members TO look_app; GRANT ALL ON projects, tasks TO look_app;
"""
BY_MEMBERS = f"EXISTS (SELECT FROM members m WHERE m.org_id = projects.org_id AND m.user_id = {ME})"
ENROL = f"GRANT INSERT ON members TO look_app; CREATE POLICY enrol ON members FOR INSERT WITH CHECK (user_id = {ME});"
BY_ADMIN = f"""
CREATE FUNCTION is_admin(org int) RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql SET search_path = '' AS
  $$ SELECT EXISTS (SELECT 1 FROM public.members m WHERE m.org_id = org AND m.user_id = {ME} AND m.role = 'admin') $$;
GRANT INSERT ON members TO look_app; CREATE POLICY admin ON members FOR INSERT WITH CHECK (is_admin(org_id));
"""
BY_PROJECT = "EXISTS (SELECT FROM projects p WHERE p.id = tasks.project_id)"

# name: (policy of projects, policy of tasks, more SQL, verdicts of projects and of tasks for SELECT … DELETE)
CASES: dict[str, tuple[str, str, str, str, str]] = {
    "members": (BY_MEMBERS, BY_PROJECT, "", "pppp", "pppp"),
    "in_members": (f"org_id IN (SELECT m.org_id FROM members m WHERE m.user_id = {ME})", BY_PROJECT, "", "pppp", "pppp"),
    "any_array": (
        f"org_id = ANY (ARRAY(SELECT m.org_id FROM members m WHERE m.user_id = {ME}))", BY_PROJECT, "", "pppp", "pppp"
    ),
    "set_of_function": ("org_id IN (SELECT my_orgs())", BY_PROJECT, "", "pppp", "pppp"),
    "set_of_plpgsql": ("org_id IN (SELECT my_orgs_as('a%'))", BY_PROJECT, "", "pppp", "pppp"),
    "function": ("is_member(org_id)", BY_PROJECT, "", "pppp", "pppp"),
    "rows_of_members_alone": ("EXISTS (SELECT FROM members m WHERE m.org_id = projects.org_id)", BY_PROJECT, "", "pppp", "pppp"),
    "any_member": (f"EXISTS (SELECT FROM members m WHERE m.user_id = {ME})", BY_PROJECT, "", "rrrr", "rrrr"),
    "joined_with_itself": ("is_anyone(org_id)", BY_PROJECT, "", "rrrr", "rrrr"),
    "an_aggregate_is_always_there": ("counted(org_id)", BY_PROJECT, "", "uuuu", "uuuu"),
    "a_name_that_may_be_another": ("shadowed(org_id)", BY_PROJECT, "", "uuuu", "uuuu"),
    "child_of_the_wrong_parent": (BY_MEMBERS, "EXISTS (SELECT FROM projects p WHERE p.id = tasks.id)", "", "pppp", "rrrr"),
    "child_without_a_parent": (BY_MEMBERS, "EXISTS (SELECT FROM projects)", "", "pppp", "rrrr"),
    "self_enrolment": (BY_MEMBERS, BY_PROJECT, ENROL, "uuuu", "uuuu"),
    "enrolment_by_an_admin": (BY_MEMBERS, BY_PROJECT, BY_ADMIN, "pppp", "pppp"),
}  # fmt: skip


def verdicts(load, case: tuple[str, str, str, str, str]) -> dict[tuple[str, str], Proof]:
    projects, tasks, more, *_ = case
    catalog: Catalog = load(
        SETUP.replace("CREATE ROLE look_app LOGIN;", "DROP ROLE IF EXISTS look_app; CREATE ROLE look_app LOGIN;")
        + f"CREATE POLICY p ON projects USING ({projects}); CREATE POLICY p ON tasks USING ({tasks});"
        + more
    )
    tenancy = infer(catalog, Declared(roles=("look_app",)))
    found = prove(catalog, tenancy, visibility_of(catalog))
    return {(catalog.relation(proof.relation).name, proof.command): proof for proof in found}


@pytest.mark.parametrize("name", CASES)
def test_verdict(load, prove_server, name: str) -> None:
    try:
        found = verdicts(load, CASES[name])
        for relation, wanted in zip(("projects", "tasks"), CASES[name][3:], strict=True):
            proofs = [found[relation, command] for command in COMMANDS]
            assert "".join(one.verdict[0] for one in proofs) == wanted, [one.reason for one in proofs]
    finally:
        for (database,) in _databases(prove_server):
            prove_server.drop_database(database)


def _databases(server) -> list[tuple[str]]:
    with server.connect() as connection:
        found = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'prove\\_%'").fetchall()
        return [(str(name),) for (name,) in found]


def test_a_proof_by_members_says_so(load) -> None:
    proof = verdicts(load, CASES["members"])["projects", "SELECT"]
    assert "public.members" in proof.reason and "tenants of the acting user" in proof.goal
