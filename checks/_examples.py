"""Schemas that several examples begin with."""

TENANT = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int"

ROLES = f"""\
CREATE ROLE app LOGIN;
CREATE ROLE keeper;
CREATE TABLE customers (id int PRIMARY KEY, tenant_id int NOT NULL, name text);
ALTER TABLE customers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON customers USING ({TENANT});
CREATE TABLE invoices (id int PRIMARY KEY, tenant_id int NOT NULL, amount int);
ALTER TABLE invoices OWNER TO keeper;
CREATE INDEX ON customers (tenant_id);
CREATE INDEX ON invoices (tenant_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON customers, invoices TO app;
"""
"""A table as it should be, and one whose protection is the example's."""

PROTECTED = ROLES + "ALTER TABLE invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;\n"

POLICY = f"CREATE POLICY tenant ON invoices USING ({TENANT});\n"

SOUND = PROTECTED + POLICY
"""Both tables as they should be."""
