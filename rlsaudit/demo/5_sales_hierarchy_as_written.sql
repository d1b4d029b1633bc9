-- alembic upgrade head --sql
-- Sales CRM with a knowledge base.  Every transaction starts with
--     SET LOCAL app.tenant_id = '…'; SET LOCAL app.user_id = '…'; SET LOCAL app.role = 'rep' | 'manager' | 'admin';

BEGIN;

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 3b1f0c9d27aa, roles, tenants and users

DO $$ BEGIN CREATE ROLE crm_owner NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE app_user LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT USAGE, CREATE ON SCHEMA public TO crm_owner;
GRANT USAGE ON SCHEMA public TO app_user;
ALTER TABLE alembic_version OWNER TO crm_owner;
SET ROLE crm_owner;

CREATE TABLE currencies (
    code CHAR(3) NOT NULL,
    symbol VARCHAR(4) NOT NULL,
    CONSTRAINT pk_currencies PRIMARY KEY (code)
);
INSERT INTO currencies (code, symbol) VALUES ('EUR', '€'), ('USD', '$'), ('GBP', '£');

CREATE TABLE tenants (
    tenant_id UUID DEFAULT gen_random_uuid() NOT NULL,
    name VARCHAR(120) NOT NULL,
    fiscal_year_start SMALLINT DEFAULT 1 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_tenants PRIMARY KEY (tenant_id),
    CONSTRAINT ck_tenants_fiscal_year CHECK (fiscal_year_start BETWEEN 1 AND 12)
);

CREATE TABLE users (
    user_id UUID DEFAULT gen_random_uuid() NOT NULL,
    tenant_id UUID NOT NULL,
    manager_id UUID,
    email VARCHAR(254) NOT NULL,
    full_name VARCHAR(120) NOT NULL,
    region VARCHAR(2)[] DEFAULT '{}' NOT NULL,
    hired_on DATE,
    CONSTRAINT pk_users PRIMARY KEY (user_id),
    CONSTRAINT fk_users_tenant FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_users_manager FOREIGN KEY(manager_id) REFERENCES users (user_id) ON DELETE SET NULL,
    CONSTRAINT uq_users_email UNIQUE (email),
    CONSTRAINT ck_users_own_manager CHECK (manager_id <> user_id)
);
CREATE INDEX ix_users_tenant_id ON users (tenant_id);

INSERT INTO alembic_version (version_num) VALUES ('3b1f0c9d27aa');

-- Running upgrade 3b1f0c9d27aa -> 7e44d15b8f02, accounts and deals

CREATE TYPE deal_stage AS ENUM ('lead', 'qualified', 'proposal', 'won', 'lost');

CREATE TABLE accounts (
    account_id UUID DEFAULT gen_random_uuid() NOT NULL,
    tenant_id UUID NOT NULL,
    name VARCHAR(200) NOT NULL,
    website VARCHAR(200),
    address JSONB DEFAULT '{}' NOT NULL,
    CONSTRAINT pk_accounts PRIMARY KEY (account_id),
    CONSTRAINT fk_accounts_tenant FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_accounts_website CHECK (website LIKE 'https://%')
);
CREATE INDEX ix_accounts_tenant_id ON accounts (tenant_id);

CREATE TABLE deals (
    deal_id UUID DEFAULT gen_random_uuid() NOT NULL,
    tenant_id UUID NOT NULL,
    account_id UUID NOT NULL,
    owner_id UUID NOT NULL,
    title VARCHAR(200) NOT NULL,
    stage deal_stage DEFAULT 'lead' NOT NULL,
    amount NUMERIC(14, 2) NOT NULL,
    currency CHAR(3) DEFAULT 'EUR' NOT NULL,
    probability NUMERIC(3, 2) DEFAULT 0.1 NOT NULL,
    closes_on DATE,
    CONSTRAINT pk_deals PRIMARY KEY (deal_id),
    CONSTRAINT fk_deals_tenant FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_deals_account FOREIGN KEY(account_id) REFERENCES accounts (account_id),
    CONSTRAINT fk_deals_owner FOREIGN KEY(owner_id) REFERENCES users (user_id),
    CONSTRAINT fk_deals_currency FOREIGN KEY(currency) REFERENCES currencies (code),
    CONSTRAINT ck_deals_amount CHECK (amount >= 0),
    CONSTRAINT ck_deals_probability CHECK (probability BETWEEN 0 AND 1)
);
CREATE INDEX ix_deals_tenant_id_owner_id ON deals (tenant_id, owner_id);

UPDATE alembic_version SET version_num='7e44d15b8f02' WHERE alembic_version.version_num = '3b1f0c9d27aa';

-- Running upgrade 7e44d15b8f02 -> a90c6e3d5511, knowledge base

-- tenant_id NULL: written by us, for everybody
CREATE TABLE kb_articles (
    article_id UUID DEFAULT gen_random_uuid() NOT NULL,
    tenant_id UUID,
    slug VARCHAR(80) NOT NULL,
    title VARCHAR(200) NOT NULL,
    body TEXT NOT NULL,
    tags TEXT[] DEFAULT '{}' NOT NULL,
    embedding REAL[],
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_kb_articles PRIMARY KEY (article_id),
    CONSTRAINT fk_kb_articles_tenant FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    CONSTRAINT uq_kb_articles_slug UNIQUE (tenant_id, slug)
);

UPDATE alembic_version SET version_num='a90c6e3d5511' WHERE alembic_version.version_num = '7e44d15b8f02';

-- Running upgrade a90c6e3d5511 -> c2d8817f40be, row level security

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE deals ENABLE ROW LEVEL SECURITY;
ALTER TABLE kb_articles ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenants_isolation ON tenants FOR ALL TO app_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY users_isolation ON users FOR ALL TO app_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY accounts_isolation ON accounts FOR ALL TO app_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY kb_articles_isolation ON kb_articles FOR ALL TO app_user
    USING (tenant_id IS NULL OR tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);

UPDATE alembic_version SET version_num='c2d8817f40be' WHERE alembic_version.version_num = 'a90c6e3d5511';

-- Running upgrade c2d8817f40be -> f6b3a2917d64, sales hierarchy

-- Everybody below a manager, at any depth.  SECURITY DEFINER: a policy that reads users would recurse.
CREATE FUNCTION team_of(p_manager uuid) RETURNS TABLE (user_id uuid, full_name varchar)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    WITH RECURSIVE team AS (
        SELECT u.user_id, u.full_name FROM users u WHERE u.user_id = p_manager
        UNION
        SELECT u.user_id, u.full_name FROM users u JOIN team t ON u.manager_id = t.user_id
    )
    SELECT team.user_id, team.full_name FROM team
$$;

CREATE POLICY deals_rep ON deals FOR ALL TO app_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid
           AND owner_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
CREATE POLICY deals_manager ON deals FOR ALL TO app_user
    USING (current_setting('app.role', true) = 'manager'
           AND owner_id IN (SELECT t.user_id FROM team_of(NULLIF(current_setting('app.user_id', true), '')::uuid) t));
CREATE POLICY deals_admin ON deals FOR ALL TO app_user
    USING (current_setting('app.role', true) = 'admin');

GRANT SELECT ON currencies TO app_user;
GRANT SELECT, UPDATE ON tenants TO app_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON users, accounts, deals, kb_articles TO app_user;

UPDATE alembic_version SET version_num='f6b3a2917d64' WHERE alembic_version.version_num = 'c2d8817f40be';

RESET ROLE;
COMMIT;
