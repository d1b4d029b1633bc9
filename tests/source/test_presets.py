"""What presets make, and how an error of SQL that expects one says so."""

from __future__ import annotations

import pytest

from rlsaudit.catalog.load import load_catalog
from rlsaudit.errors import UsageError
from rlsaudit.source import presets
from rlsaudit.source.files import SqlFile
from rlsaudit.source.load import load_sql
from rlsaudit.source.server import ScratchServer

PROJECT = """
CREATE EXTENSION IF NOT EXISTS pg_net;
CREATE EXTENSION pg_cron WITH SCHEMA extensions;
CREATE TABLE public.profiles (id uuid PRIMARY KEY REFERENCES auth.users ON DELETE CASCADE, name text);
ALTER TABLE public.profiles ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON public.profiles TO authenticated USING (id = (SELECT auth.uid()));
CREATE POLICY claims ON public.profiles FOR SELECT USING ((auth.jwt() -> 'app_metadata' ->> 'org') = name AND auth.role() = 'x');
CREATE FUNCTION public.made() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN INSERT INTO public.profiles (id) VALUES (NEW.id); RETURN NEW; END $$;
CREATE TRIGGER on_auth_user_created AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION public.made();
INSERT INTO storage.buckets (id, name, public) VALUES ('avatars', 'avatars', false);
CREATE POLICY avatars ON storage.objects FOR SELECT
    USING (bucket_id = 'avatars' AND (storage.foldername(name))[1] = auth.uid()::text);
CREATE POLICY topics ON realtime.messages FOR SELECT TO authenticated USING (realtime.topic() = auth.uid()::text);
ALTER PUBLICATION supabase_realtime ADD TABLE public.profiles;
SELECT cron.schedule('nightly', '0 0 * * *', 'select 1');
SELECT net.http_post(url := 'https://example.org', body := '{}'::jsonb);
SELECT vault.create_secret('s', 'key'); SELECT decrypted_secret FROM vault.decrypted_secrets;
SELECT uuid_generate_v4(), extensions.crypt('x', extensions.gen_salt('bf'));
CREATE TRIGGER hook AFTER INSERT ON public.profiles FOR EACH ROW
    EXECUTE FUNCTION supabase_functions.http_request('https://example.org', 'POST', '{}', '{}', '1000');
"""


def loaded(server: ScratchServer, database: str, text: str, name: str = "") -> None:
    files = [presets.preset(name)] if name else []
    offered = presets.EXTENSIONS.get(name, frozenset())
    load_sql(lambda: server.connect(database), [*files, SqlFile(text, "schema.sql")], offered=offered)


def test_a_project_of_the_platform_loads(server: ScratchServer, database: str) -> None:
    loaded(server, database, PROJECT, "supabase")
    with server.connect(database) as connection:
        catalog = load_catalog(connection)
        held = connection.execute(
            "SELECT r, has_table_privilege(r, 'public.profiles', 'SELECT, DELETE'), has_table_privilege(r, 'auth.users', 'SELECT')"
            " FROM unnest(ARRAY['anon', 'authenticated', 'service_role']) AS r ORDER BY r"
        ).fetchall()
        path = connection.execute("SHOW search_path").fetchone()
        connection.execute('SET request.jwt.claims = \'{"sub": "00000000-0000-4000-8000-000000000001", "role": "x"}\'')
        who = connection.execute("SELECT auth.uid()::text, auth.role(), auth.jwt() ->> 'role', auth.email()").fetchone()
    assert [row[0] for row in held] == ["anon", "authenticated", "service_role"]
    assert all(row[1:] == (True, False) for row in held)
    assert path == ('"$user", public, extensions',)
    assert who == ("00000000-0000-4000-8000-000000000001", "x", "x", None)
    roles = {role.name: role for role in catalog.roles}
    assert [roles[name].bypassrls for name in ("anon", "authenticated", "service_role")] == [False, False, True]
    guarded = {relation.qualified for relation in catalog.relations if relation.rls_enabled}
    assert {"auth.users", "storage.objects", "storage.buckets", "realtime.messages"} <= guarded


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("CREATE TABLE t (u uuid REFERENCES auth.users);", 'schema "auth"'),
        ("CREATE TABLE t (u uuid); CREATE POLICY p ON t USING (u = auth.uid());", 'schema "auth"'),
        ("ALTER PUBLICATION supabase_realtime ADD TABLE t;", "publication"),
    ],
)
def test_an_error_names_the_preset(server: ScratchServer, database: str, text: str, missing: str) -> None:
    with pytest.raises(UsageError, match=rf"{missing}.* does not exist; .*--preset supabase"):
        loaded(server, database, text)


def test_other_errors_name_none(server: ScratchServer, database: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(server, database, "CREATE TABLE t (u uuid REFERENCES accounts.users);")
    assert "--preset" not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        loaded(server, database, "CREATE TABLE t (u uuid REFERENCES auth.nobody);", "supabase")
    assert "--preset" not in str(caught.value)


def test_names() -> None:
    assert presets.names() == ("supabase",)
    with pytest.raises(UsageError, match="unknown preset 'supabas': choose from supabase"):
        presets.known("supabas")
    assert presets.notes("", ["app"]) == ()
    assert "--preset supabase" in presets.notes("", ["authenticated", "app"])[0]
