"""A folder of migrations that expects a platform."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ORGS = """
CREATE TABLE public.organizations (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL);
CREATE TABLE public.members (organization_id uuid NOT NULL REFERENCES public.organizations, user_id uuid NOT NULL REFERENCES auth.users,
    PRIMARY KEY (organization_id, user_id));
CREATE TABLE public.documents (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id uuid NOT NULL REFERENCES public.organizations, title text NOT NULL);
CREATE INDEX ON public.documents (organization_id);
CREATE INDEX ON public.members (user_id);
ALTER TABLE public.organizations ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.members ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON public.members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
CREATE POLICY own ON public.organizations FOR SELECT TO authenticated
    USING (id IN (SELECT organization_id FROM public.members WHERE user_id = (SELECT auth.uid())));
CREATE POLICY own ON public.documents TO authenticated
    USING (organization_id IN (SELECT organization_id FROM public.members WHERE user_id = (SELECT auth.uid())));
-- The platform gives clients every privilege, those included that no policy sees.
REVOKE TRUNCATE, TRIGGER, REFERENCES ON ALL TABLES IN SCHEMA public FROM anon, authenticated;
"""
OPEN = "CREATE POLICY everyone ON public.documents FOR SELECT TO authenticated USING (true);\n"


@pytest.fixture
def project(tmp_path: Path):
    def make(*more: str) -> Path:
        folder = tmp_path / "supabase" / "migrations"
        folder.mkdir(parents=True)
        for number, text in enumerate((ORGS, *more)):
            (folder / f"2024010100000{number}_m.sql").write_text(text)
        return folder.parent

    return make


def test_without_the_preset_the_error_names_it(rlsaudit, project) -> None:
    ran = rlsaudit("scan", project())
    assert ran.code == 2
    assert 'schema "auth" does not exist; the SQL expects a platform: --preset supabase' in ran.said[-1]


@pytest.mark.parametrize(("more", "leaks"), [((), set()), ((OPEN,), {"public.documents"})], ids=["sound", "leaky"])
def test_with_the_preset(rlsaudit, project, tmp_path, more, leaks) -> None:
    ran = rlsaudit("scan", project(*more), "--preset", "supabase", "--budget", "0.2")
    found = json.loads((tmp_path / "rlsaudit-report" / "evidence.json").read_text())
    assert {c["relation"] for c in found["cells"] if c["state"] == "leak"} == leaks, ran.output
    assert {f["object"] for f in found["findings"] if f["check"] == "PROBE-READ"} == leaks
    tested = {
        c["relation"]: c["state"] for c in found["cells"] if c["command"] == "SELECT" and c["role"] == "authenticated"
    }
    expected = "leak" if leaks else {"held", "proven"}
    assert tested["public.documents"] in expected
    assert {role["name"] for role in found["roles"] if role["application"]} == {"anon", "authenticated"}
    assert any("preset supabase was loaded" in note for note in found["notes"])


def test_by_configuration(rlsaudit, project, tmp_path) -> None:
    folder = project()
    (tmp_path / "rlsaudit.toml").write_text('preset = "supabase"\n')
    assert rlsaudit("audit", folder).code in (0, 1)
    (tmp_path / "rlsaudit.toml").write_text('preset = "supabase"\nroles = ["authenticated"]\n')
    ran = rlsaudit("init", folder, "--output", "-")
    assert 'roles = ["authenticated"]' in ran.output


def test_unknown_and_misplaced(rlsaudit, project, target) -> None:
    ran = rlsaudit("scan", project(), "--preset", "firebase")
    assert (ran.code, ran.said) == (2, ["rlsaudit: unknown preset 'firebase': choose from supabase"])
    ran = rlsaudit("audit", target.conninfo("target"), "--preset", "supabase")
    assert ran.code == 2
    assert "--preset supabase is for SQL" in ran.said[-1]
    assert "supabase" in rlsaudit("doctor").output
