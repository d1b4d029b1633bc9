-- =====================================================================================================
-- Document workspace - multi-tenant schema
-- Tenant isolation is enforced in the database by PostgreSQL Row Level Security, using app.current_org_id.
-- Supports SOC 2 (CC6.1, CC6.3) and ISO/IEC 27001:2022 (A.5.15, A.8.3); the evidence is a test run, not this line.
--
-- The API calls   SELECT set_rls_context(<org>, <user>);   as the first statement of every transaction.
-- The context ends with the transaction; without it, no row is visible and none can be written.
-- =====================================================================================================

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'workspace_owner') THEN
        CREATE ROLE workspace_owner NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'workspace_api') THEN
        CREATE ROLE workspace_api LOGIN NOBYPASSRLS;
    END IF;
END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO workspace_owner;
GRANT USAGE ON SCHEMA public TO workspace_api;
ALTER DEFAULT PRIVILEGES FOR ROLE workspace_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
SET ROLE workspace_owner;

CREATE TYPE member_role AS ENUM ('viewer', 'editor', 'admin');
CREATE TYPE document_state AS ENUM ('draft', 'in_review', 'approved', 'retired');
CREATE DOMAIN email_address AS text CHECK (VALUE ~ '^[^@ ]+@[^@ ]+$');

-- Every primary key below starts with org_id: it serves the policies as index, the foreign keys as target,
-- and a duplicate can only be one's own.
CREATE TABLE organizations (
    org_id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name           text NOT NULL,
    slug           varchar(40) NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9-]+$'),
    settings       jsonb NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    org_id         uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    user_id        uuid NOT NULL DEFAULT gen_random_uuid(),
    email          email_address NOT NULL,
    display_name   text NOT NULL,
    role           member_role NOT NULL DEFAULT 'viewer',
    mfa_enabled    boolean NOT NULL DEFAULT false,
    last_login     timestamptz,
    PRIMARY KEY (org_id, user_id),
    UNIQUE (org_id, email)
);

CREATE TABLE projects (
    org_id         uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    project_id     uuid NOT NULL DEFAULT gen_random_uuid(),
    code           varchar(10) NOT NULL,
    title          text NOT NULL,
    budget         numeric(14,2) CHECK (budget > 0),
    starts_on      date NOT NULL DEFAULT current_date,
    ends_on        date,
    CHECK (ends_on > starts_on),
    PRIMARY KEY (org_id, project_id),
    UNIQUE (org_id, code)
);

CREATE TABLE documents (
    org_id         uuid NOT NULL,
    document_id    uuid NOT NULL DEFAULT gen_random_uuid(),
    project_id     uuid NOT NULL,
    title          text NOT NULL,
    body           text NOT NULL DEFAULT '',
    state          document_state NOT NULL DEFAULT 'draft',
    tags           text[] NOT NULL DEFAULT '{}',
    metadata       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    retain_for     interval NOT NULL DEFAULT '7 years',
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, document_id),
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, project_id) ON DELETE CASCADE
);
CREATE INDEX idx_documents_project ON documents (org_id, project_id);

CREATE TABLE document_attachments (
    org_id         uuid NOT NULL,
    attachment_id  uuid NOT NULL DEFAULT gen_random_uuid(),
    document_id    uuid NOT NULL,
    file_name      text NOT NULL,
    content_type   text NOT NULL DEFAULT 'application/pdf',
    content        bytea,
    size_bytes     integer NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (org_id, attachment_id),
    FOREIGN KEY (org_id, document_id) REFERENCES documents (org_id, document_id) ON DELETE CASCADE
);
CREATE INDEX idx_attachments_document ON document_attachments (org_id, document_id);

CREATE TABLE audit_log (
    org_id         uuid NOT NULL,
    audit_id       uuid NOT NULL DEFAULT gen_random_uuid(),
    actor          uuid,
    action         text NOT NULL CHECK (action IN ('INSERT', 'UPDATE', 'DELETE')),
    before         jsonb,
    after          jsonb,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (org_id, audit_id)
);
CREATE INDEX idx_audit_log_at ON audit_log (org_id, at DESC);

-- Sets who acts, for which organization, until the end of this transaction
CREATE FUNCTION set_rls_context(p_org_id uuid, p_user_id uuid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_org_id IS NULL OR p_user_id IS NULL THEN
        RAISE EXCEPTION 'set_rls_context: organization and user are both required';
    END IF;
    PERFORM set_config('app.current_org_id', p_org_id::text, true);
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
END $$;
GRANT EXECUTE ON FUNCTION set_rls_context(uuid, uuid) TO workspace_api;

ALTER TABLE organizations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE projects ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE documents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE document_attachments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- The policies name no role: they bind the owner too, and with it everything that runs with the owner's rights
CREATE POLICY org_isolation ON organizations FOR ALL
    USING (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid);
CREATE POLICY org_isolation ON users FOR ALL
    USING (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid);
CREATE POLICY org_isolation ON projects FOR ALL
    USING (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid);
CREATE POLICY org_isolation ON documents FOR ALL
    USING (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid);
CREATE POLICY org_isolation ON document_attachments FOR ALL
    USING (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid);
CREATE POLICY org_isolation ON audit_log FOR ALL
    USING (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.current_org_id', true), '')::uuid);

-- Every change of a document is recorded.  SECURITY DEFINER because the API must not write the log itself;
-- FORCE and the policy keep the owner within the organization of the session as well.
CREATE FUNCTION write_audit_log() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO public.audit_log (org_id, actor, action, before, after)
    VALUES (CASE WHEN TG_OP = 'DELETE' THEN OLD.org_id ELSE NEW.org_id END,
            NULLIF(current_setting('app.current_user_id', true), '')::uuid, TG_OP,
            CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
            CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END $$;
CREATE TRIGGER documents_audit AFTER INSERT OR UPDATE OR DELETE ON documents
    FOR EACH ROW EXECUTE FUNCTION write_audit_log();

-- Full-text search with the caller's rights; the index on (org_id, …) keeps it fast
CREATE FUNCTION search_documents(p_query text) RETURNS TABLE (document_id uuid, title text, excerpt text)
LANGUAGE sql STABLE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.document_id, d.title, left(d.body, 200)
    FROM public.documents d
    WHERE d.title ILIKE '%' || p_query || '%' OR d.body ILIKE '%' || p_query || '%'
$$;
GRANT EXECUTE ON FUNCTION search_documents(text) TO workspace_api;

GRANT SELECT ON organizations TO workspace_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON users, projects, documents, document_attachments TO workspace_api;
GRANT SELECT ON audit_log TO workspace_api;

RESET ROLE;
