"""The text of every catalog query, by server version; ``load`` runs them and turns their rows into values.

Names are qualified with pg_catalog, and the columns of a query stand in the order of the fields they fill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

BEGIN: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

# Everything that changes how the server prints names, expressions and constants is pinned, so that the same
# schema always reads the same; the timeouts keep an audit from waiting behind a migration that holds locks.
SETTINGS: LiteralString = """
SET LOCAL search_path = '';
SET LOCAL statement_timeout = '60s';
SET LOCAL lock_timeout = '10s';
SET LOCAL client_encoding = 'UTF8';
SET LOCAL quote_all_identifiers = off;
SET LOCAL standard_conforming_strings = on;
SET LOCAL DateStyle = 'ISO, YMD';
SET LOCAL IntervalStyle = 'postgres';
SET LOCAL TimeZone = 'UTC';
SET LOCAL extra_float_digits = 1;
SET LOCAL bytea_output = 'hex';
SET LOCAL xmloption = content;
"""

# Schemas whose objects are the users': a name that starts with pg_ is reserved by the server.
_SCOPE: LiteralString = "n.nspname <> 'information_schema' AND n.nspname !~ '^pg_(catalog|toast|temp)'"


def _in_scope(query: LiteralString) -> LiteralString:
    return query.replace("{scope}", _SCOPE)


SERVER: LiteralString = """
SELECT pg_catalog.current_setting('server_version'),
       pg_catalog.current_setting('server_version_num')::int,
       '',
       d.datname,
       current_user,
       r.rolsuper,
       r.rolbypassrls,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
       d.datdba,
       pg_catalog.pg_get_viewdef('pg_catalog.pg_stats_ext_exprs'::pg_catalog.regclass) ~ 'row_security_active'
           OR NOT pg_catalog.has_table_privilege('public', 'pg_catalog.pg_stats_ext_exprs', 'SELECT'),
       pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
WHERE d.datname = pg_catalog.current_database() AND r.rolname = current_user
"""

SYSTEM_IDENTIFIER: LiteralString = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"

ROLES: LiteralString = """
SELECT oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
       rolbypassrls
FROM pg_catalog.pg_roles ORDER BY rolname
"""

# The same membership can be granted by several grantors; an option that one of them gave is held.
_MEMBERSHIPS: LiteralString = """
SELECT roleid, member, pg_catalog.bool_or(admin_option), pg_catalog.bool_or(inherit_option),
       pg_catalog.bool_or(set_option)
FROM pg_catalog.pg_auth_members GROUP BY roleid, member ORDER BY roleid, member
"""
_MEMBERSHIPS_15: LiteralString = """
SELECT m.roleid, m.member, pg_catalog.bool_or(m.admin_option), pg_catalog.bool_or(r.rolinherit), true
FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member
GROUP BY m.roleid, m.member ORDER BY m.roleid, m.member
"""

SCHEMAS: LiteralString = _in_scope("""
SELECT n.oid, n.nspname, n.nspowner FROM pg_catalog.pg_namespace n WHERE {scope} ORDER BY n.nspname
""")

RELATIONS: LiteralString = _in_scope("""
SELECT c.oid, n.nspname, c.relname,
       CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
            WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'sequence' END,
       c.relowner, c.relrowsecurity, c.relforcerowsecurity, i.parents, c.relispartition,
       CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END,
       CASE WHEN c.relispartition THEN pg_catalog.pg_get_expr(c.relpartbound, c.oid) END,
       CASE c.relpersistence WHEN 'p' THEN 'permanent' WHEN 'u' THEN 'unlogged' ELSE 'temporary' END,
       c.reloptions,
       CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END,
       c.reltuples, coalesce(f.ftserver, 0), w.ev_action::text
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN (SELECT inhrelid, pg_catalog.array_agg(inhparent ORDER BY inhseqno) AS parents
           FROM pg_catalog.pg_inherits GROUP BY inhrelid) i ON i.inhrelid = c.oid
LEFT JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid
LEFT JOIN pg_catalog.pg_rewrite w ON w.ev_class = c.oid AND w.rulename = '_RETURN'
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {scope} ORDER BY n.nspname, c.relname
""")

COLUMNS: LiteralString = _in_scope("""
SELECT a.attrelid, a.attnum, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid,
       a.attnotnull, pg_catalog.pg_get_expr(d.adbin, d.adrelid),
       CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' ELSE '' END,
       CASE a.attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' ELSE '' END,
       CASE WHEN d.adbin::text !~ '^\\{CONST |:funcid (480|1574) ' THEN d.adbin::text END, d.oid
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {scope}
ORDER BY a.attrelid, a.attnum
""")

# What columns' defaults name, and the columns that identity sequences belong to.  Put together by the loader: a server
# without statistics joins these row by row.
COLUMN_SEQUENCES: LiteralString = """
SELECT classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass, objid, refobjid, refobjsubid
FROM pg_catalog.pg_depend
WHERE refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND ((classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND refobjsubid = 0)
    OR (classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND deptype = 'i' AND refobjsubid > 0))
ORDER BY objid, refobjid, refobjsubid
"""

# One row per type that a column uses: what is under its domains, and the constraints of those domains.
COLUMN_TYPES: LiteralString = _in_scope("""
WITH RECURSIVE chain (used, oid, depth) AS (
    SELECT DISTINCT a.atttypid, a.atttypid, 0
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {scope}
  UNION ALL
    SELECT chain.used, t.typbasetype, chain.depth + 1
    FROM chain JOIN pg_catalog.pg_type t ON t.oid = chain.oid WHERE t.typtype = 'd'
), checks AS (
    SELECT chain.used,
           pg_catalog.array_agg(pg_catalog.pg_get_constraintdef(k.oid) ORDER BY chain.depth DESC, k.conname)
               AS definitions
    FROM chain JOIN pg_catalog.pg_constraint k ON k.contypid = chain.oid AND k.contype = 'c'
    GROUP BY chain.used
)
SELECT chain.used, pg_catalog.format_type(t.oid, NULL), t.typcategory::text,
       CASE WHEN t.typtype = 'e' THEN ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
                                            WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) END,
       checks.definitions
FROM chain
JOIN pg_catalog.pg_type t ON t.oid = chain.oid AND t.typtype <> 'd'
LEFT JOIN checks ON checks.used = chain.used
ORDER BY chain.used
""")

# A foreign key to a partitioned table has internal copies, one to each partition: no keys of their own.
# PostgreSQL 18 has a constraint for every NOT NULL column, too many to ask the server to print each.
_CONSTRAINTS: LiteralString = _in_scope("""
SELECT k.oid, k.conname, k.conrelid,
       CASE k.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique' WHEN 'f' THEN 'foreign key'
            WHEN 'c' THEN 'check' WHEN 'x' THEN 'exclusion' WHEN 'n' THEN 'not null' ELSE 'trigger' END,
       k.conkey,
       CASE WHEN k.contype = 'n' AND k.convalidated AND NOT k.connoinherit
            THEN 'NOT NULL ' || (SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a
                                 WHERE a.attrelid = k.conrelid AND a.attnum = k.conkey[1])
            ELSE pg_catalog.pg_get_constraintdef(k.oid) END,
       CASE WHEN k.contype = 'c' THEN pg_catalog.pg_get_expr(k.conbin, k.conrelid) END,
       k.confrelid, k.confkey, k.confupdtype::text, k.confdeltype::text, k.condeferrable, k.convalidated,
       {enforced}, CASE WHEN k.contype = 'c' THEN k.conbin::text END
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_constraint p ON p.oid = k.conparentid AND p.conrelid = k.conrelid
WHERE p.oid IS NULL AND {scope} ORDER BY k.conrelid, k.conname, k.oid
""")

INDEXES: LiteralString = _in_scope("""
SELECT i.indexrelid, x.relname, i.indrelid, i.indkey::text, i.indnkeyatts, i.indisunique, i.indisprimary,
       i.indisvalid, i.indnullsnotdistinct, pg_catalog.pg_get_expr(i.indpred, i.indrelid),
       pg_catalog.pg_get_indexdef(i.indexrelid), m.amname, i.indexprs::text, i.indpred::text
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = x.relam
JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
WHERE {scope} ORDER BY i.indrelid, x.relname
""")

POLICIES: LiteralString = _in_scope("""
SELECT p.oid, p.polname, p.polrelid,
       CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
            WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
       p.polpermissive, p.polroles,
       pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
       p.polqual::text, p.polwithcheck::text
FROM pg_catalog.pg_policy p
JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {scope} ORDER BY p.polrelid, p.polname
""")

FUNCTIONS: LiteralString = _in_scope("""
SELECT p.oid, n.nspname, p.proname,
       CASE p.prokind WHEN 'f' THEN 'function' WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate'
            ELSE 'window' END,
       p.proowner, l.lanname, p.prosecdef, p.proleakproof, p.proisstrict,
       CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
       p.proargnames, p.proargmodes::text[],
       ARRAY(SELECT pg_catalog.format_type(u.t, NULL)
             FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY u(t, o) ORDER BY u.o),
       pg_catalog.format_type(p.prorettype, NULL), p.proretset, p.proconfig,
       CASE WHEN p.prosqlbody IS NULL THEN p.prosrc ELSE pg_catalog.pg_get_function_sqlbody(p.oid) END,
       p.prosqlbody::text, p.prorettype
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE {scope} ORDER BY n.nspname, p.proname, p.oid
""")

TRIGGERS: LiteralString = _in_scope("""
SELECT t.oid, t.tgname, t.tgrelid, t.tgfoid, t.tgtype, t.tgenabled::text, t.tgattr::text,
       pg_catalog.pg_get_triggerdef(t.oid)
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND {scope} ORDER BY t.tgrelid, t.tgname
""")

EVENT_TRIGGERS: LiteralString = """
SELECT evtname, evtevent, evttags, evtfoid, evtenabled::text FROM pg_catalog.pg_event_trigger ORDER BY evtname
"""

RULES: LiteralString = _in_scope("""
SELECT r.oid, r.rulename, r.ev_class,
       CASE r.ev_type WHEN '1' THEN 'SELECT' WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END,
       r.is_instead, pg_catalog.pg_get_ruledef(r.oid)
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND {scope} ORDER BY r.ev_class, r.rulename
""")

# An absent ACL means the built-in default.  Array types and row types of tables have no privileges of their
# own.  Large objects may be many: one (the lowest OID) stands for all that a grantee can reach.
GRANTS: LiteralString = _in_scope("""
SELECT 'relation', c.oid, 0, a.grantee, a.privilege_type, a.is_grantable, ''
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
     pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault(
         CASE WHEN c.relkind = 'S' THEN 's'::"char" ELSE 'r'::"char" END, c.relowner))) a
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {scope}
UNION ALL
SELECT 'column', c.oid, t.attnum::int, a.grantee, a.privilege_type, a.is_grantable, ''
FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
     pg_catalog.aclexplode(t.attacl) a
WHERE t.attacl IS NOT NULL AND NOT t.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {scope}
UNION ALL
SELECT 'schema', n.oid, 0, a.grantee, a.privilege_type, a.is_grantable, ''
FROM pg_catalog.pg_namespace n,
     pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
WHERE {scope}
UNION ALL
SELECT 'function', p.oid, 0, a.grantee, a.privilege_type, a.is_grantable, ''
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace,
     pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
WHERE {scope}
UNION ALL
SELECT 'type', t.oid, 0, a.grantee, a.privilege_type, a.is_grantable, ''
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
     LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid,
     pg_catalog.aclexplode(coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))) a
WHERE t.typcategory <> 'A' AND coalesce(c.relkind = 'c', true) AND {scope}
UNION ALL
SELECT 'database', d.oid, 0, a.grantee, a.privilege_type, a.is_grantable, ''
FROM pg_catalog.pg_database d,
     pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
WHERE d.datname = pg_catalog.current_database()
UNION ALL
SELECT 'parameter', p.oid, 0, a.grantee, a.privilege_type, a.is_grantable, p.parname
FROM pg_catalog.pg_parameter_acl p, pg_catalog.aclexplode(p.paracl) a
UNION ALL
SELECT 'large object', min(l.oid), 0, a.grantee, a.privilege_type, pg_catalog.bool_or(a.is_grantable), ''
FROM pg_catalog.pg_largeobject_metadata l, pg_catalog.aclexplode(l.lomacl) a
WHERE l.lomacl IS NOT NULL AND a.grantee <> l.lomowner
GROUP BY a.grantee, a.privilege_type
""")

DEFAULT_PRIVILEGES: LiteralString = """
SELECT d.defaclrole, d.defaclnamespace,
       CASE d.defaclobjtype WHEN 'r' THEN 'relation' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'function'
            WHEN 'T' THEN 'type' WHEN 'n' THEN 'schema' ELSE 'large object' END,
       a.grantee, a.privilege_type
FROM pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) a
ORDER BY d.defaclrole, d.defaclnamespace, d.defaclobjtype, a.grantee, a.privilege_type
"""

PUBLICATIONS: LiteralString = """
SELECT p.pubname, p.puballtables,
       ARRAY(SELECT r.prrelid FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid),
       ARRAY(SELECT r.prrelid FROM pg_catalog.pg_publication_rel r
             WHERE r.prpubid = p.oid AND r.prqual IS NOT NULL ORDER BY r.prrelid),
       ARRAY(SELECT r.prqual::text FROM pg_catalog.pg_publication_rel r
             WHERE r.prpubid = p.oid AND r.prqual IS NOT NULL ORDER BY r.prrelid),
       ARRAY(SELECT n.nspname::text FROM pg_catalog.pg_publication_namespace s
             JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid WHERE s.pnpubid = p.oid)
FROM pg_catalog.pg_publication p ORDER BY p.pubname
"""

EXTENSIONS: LiteralString = """
SELECT e.extname, e.extversion, n.nspname,
       (SELECT v.trusted FROM pg_catalog.pg_available_extension_versions v
        WHERE v.name = e.extname AND v.version = e.extversion),
       ARRAY(SELECT d.objid FROM pg_catalog.pg_depend d
             WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
               AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass),
       ARRAY(SELECT d.objid FROM pg_catalog.pg_depend d
             WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
               AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass)
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY e.extname
"""

SETTINGS_OF_ROLES: LiteralString = """
SELECT s.setrole, coalesce(d.datname, ''), pg_catalog.split_part(c.item, '=', 1),
       pg_catalog.substr(c.item, pg_catalog.strpos(c.item, '=') + 1)
FROM pg_catalog.pg_db_role_setting s
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c(item)
LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
WHERE s.setdatabase = 0 OR d.datname = pg_catalog.current_database()
ORDER BY s.setrole, s.setdatabase, c.item
"""

FOREIGN_SERVERS: LiteralString = """
SELECT s.oid, s.srvname, w.fdwname, s.srvowner, s.srvoptions
FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
ORDER BY s.srvname
"""

# pg_user_mappings hides the options from those who may not see them.
USER_MAPPINGS: LiteralString = """
SELECT m.srvid, m.umuser,
       (SELECT pg_catalog.substr(o, 6) FROM pg_catalog.unnest(m.umoptions) o WHERE o LIKE 'user=%'),
       m.umoptions IS NOT NULL OR pg_catalog.pg_has_role(s.srvowner, 'USAGE')
FROM pg_catalog.pg_user_mappings m JOIN pg_catalog.pg_foreign_server s ON s.oid = m.srvid
ORDER BY m.srvid, m.umuser
"""

# What the ACLs of system objects say beyond what initdb made; owners hold everything anyway.
SYSTEM_GRANTS: LiteralString = """
WITH object (target, name, acl, initial, owner) AS (
    SELECT 'relation', n.nspname || '.' || c.relname, c.relacl,
           coalesce(i.initprivs, pg_catalog.acldefault('r', c.relowner)), c.relowner
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_init_privs i
        ON i.objoid = c.oid AND i.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.objsubid = 0
    WHERE n.nspname = 'pg_catalog' AND c.relacl IS NOT NULL
      AND c.relacl IS DISTINCT FROM i.initprivs
  UNION ALL
    SELECT 'column', n.nspname || '.' || c.relname || '.' || a.attname, a.attacl,
           i.initprivs, c.relowner
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_init_privs i
        ON i.objoid = c.oid AND i.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.objsubid = a.attnum
    WHERE n.nspname = 'pg_catalog' AND a.attacl IS NOT NULL
      AND a.attacl IS DISTINCT FROM i.initprivs
  UNION ALL
    SELECT 'function', n.nspname || '.' || p.proname || '('
           || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')', p.proacl,
           coalesce(i.initprivs, pg_catalog.acldefault('f', p.proowner)), p.proowner
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    LEFT JOIN pg_catalog.pg_init_privs i
        ON i.objoid = p.oid AND i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objsubid = 0
    WHERE n.nspname = 'pg_catalog' AND p.proacl IS NOT NULL
      AND p.proacl IS DISTINCT FROM i.initprivs
)
SELECT o.target, o.name, a.grantee, a.privilege_type
FROM object o, pg_catalog.aclexplode(o.acl) a
WHERE a.grantee <> o.owner AND NOT EXISTS (
    SELECT FROM pg_catalog.aclexplode(o.initial) b
    WHERE b.grantee = a.grantee AND b.privilege_type = a.privilege_type)
ORDER BY 1, 2, 3, 4
"""

EXTENDED_STATISTICS: LiteralString = _in_scope("""
SELECT n.nspname, s.stxname, s.stxrelid, s.stxexprs IS NOT NULL
FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
WHERE {scope} ORDER BY n.nspname, s.stxname
""")

LARGE_OBJECTS: LiteralString = """
SELECT lomowner, count(*) FROM pg_catalog.pg_largeobject_metadata GROUP BY lomowner ORDER BY lomowner
"""

# search_path and the like as a new session has them, not as SETTINGS pinned them.
PARAMETERS: LiteralString = """
SELECT name, coalesce(reset_val, '') FROM pg_catalog.pg_settings
WHERE name IN ('search_path', 'row_security', 'session_replication_role', 'lo_compat_privileges', 'log_statement',
               'shared_preload_libraries', 'session_preload_libraries', 'local_preload_libraries', 'wal_level',
               'pgaudit.log', 'pgaudit.role', 'event_triggers', 'log_min_duration_statement', 'track_activities')
ORDER BY name
"""

# What stands in an expression or a query of an object.  A policy always depends on columns of its own table,
# and a trigger on its own function: those say nothing and are left out.  Built-in objects are not recorded.
DEPENDENCIES: LiteralString = """
WITH mention (source_kind, source, own_relation, own_function, refclassid, refobjid) AS (
    SELECT CASE WHEN r.rulename = '_RETURN' THEN 'relation' ELSE 'rule' END,
           CASE WHEN r.rulename = '_RETURN' THEN r.ev_class ELSE r.oid END, r.ev_class, 0::oid, d.refclassid,
           d.refobjid
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  UNION
    SELECT 'policy', p.oid, p.polrelid, 0::oid, d.refclassid, d.refobjid
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_policy p ON p.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
  UNION
    SELECT 'trigger', t.oid, t.tgrelid, t.tgfoid, d.refclassid, d.refobjid
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_trigger t ON t.oid = d.objid AND NOT t.tgisinternal
    WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
  UNION
    SELECT 'relation', a.adrelid, a.adrelid, 0::oid, d.refclassid, d.refobjid
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef a ON a.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
  UNION
    SELECT 'function', d.objid, 0::oid, d.objid, d.refclassid, d.refobjid
    FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
)
SELECT source_kind, source,
       CASE WHEN refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN 'relation' ELSE 'function' END,
       refobjid
FROM mention
WHERE (refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND refobjid <> own_relation)
   OR (refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND refobjid <> own_function)
ORDER BY 1, 2, 3, 4
"""

COLLATIONS: LiteralString = """
SELECT c.oid, n.nspname, c.collname, c.collisdeterministic
FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
WHERE c.oid >= 16384 ORDER BY 2, 3
"""

SYMBOL_OPERATORS: LiteralString = """
SELECT o.oid, n.nspname, o.oprname, o.oprcode::oid,
       EXISTS (SELECT FROM pg_catalog.pg_amop a
               JOIN pg_catalog.pg_opclass c ON c.opcfamily = a.amopfamily AND c.opcdefault
               JOIN pg_catalog.pg_am m ON m.oid = a.amopmethod AND m.amname = 'btree'
               WHERE a.amopopr = o.oid AND a.amopstrategy = 3),
       CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' WHEN 'v' THEN 'volatile'
            ELSE '' END
FROM pg_catalog.pg_operator o
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
LEFT JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE o.oid = ANY (%s::oid[]) ORDER BY o.oid
"""

SYMBOL_FUNCTIONS: LiteralString = """
SELECT p.oid, n.nspname, p.proname,
       CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
       p.proisstrict, p.procost
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.oid = ANY (%s::oid[]) ORDER BY p.oid
"""

SYMBOL_TYPES: LiteralString = """
SELECT t.oid, n.nspname, t.typname
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid = ANY (%s::oid[]) ORDER BY t.oid
"""

# Independent of RELATIONS on purpose: kinds and schemas are taken away instead of picked, so that a kind of
# relation this program does not know shows up as a difference.
POPULATION: LiteralString = """
SELECT count(*) FROM pg_catalog.pg_class
WHERE relkind NOT IN ('i', 'I', 't', 'c')
  AND relnamespace NOT IN (SELECT oid FROM pg_catalog.pg_namespace
                           WHERE pg_catalog.left(nspname, 3) = 'pg_' OR nspname = 'information_schema')
"""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The queries that differ between server versions."""

    memberships: LiteralString
    constraints: LiteralString


def dialect(version_num: int) -> Dialect:
    """The queries for a server of this version; 15 is the oldest."""
    return Dialect(
        memberships=_MEMBERSHIPS if version_num >= 160000 else _MEMBERSHIPS_15,
        constraints=_CONSTRAINTS.replace("{enforced}", "k.conenforced" if version_num >= 180000 else "true"),
    )
