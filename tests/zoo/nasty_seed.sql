-- Everything that makes rows hard to invent.  test_nasty_seed.py wants two rows per tenant in every relation.
CREATE ROLE z_app LOGIN;
CREATE ROLE z_clerk NOLOGIN;

CREATE TYPE stage AS ENUM ('draft', 'sent', 'paid', 'void');
CREATE TYPE address AS (street text, house integer, country char(2));
CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TYPE opaque;
CREATE FUNCTION opaque_in(cstring) RETURNS opaque LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION opaque_out(opaque) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE opaque (INPUT = opaque_in, OUTPUT = opaque_out, LIKE = text);
CREATE DOMAIN org_key AS varchar(20) CHECK (VALUE LIKE 'org\_%') CHECK (length(VALUE) >= 8);
CREATE DOMAIN ulid AS char(26) CHECK (VALUE ~ '^[0-9A-HJKMNP-TV-Z]{26}$');
CREATE DOMAIN ksuid AS text CHECK (VALUE ~ '^[0-9A-Za-z]{27}$');
CREATE DOMAIN sku AS text CHECK (VALUE ~ '^[A-Z]{3}-[0-9]{4}$');
CREATE DOMAIN share AS numeric CHECK (VALUE > 0 AND VALUE <= 1);
CREATE DOMAIN email AS text CHECK (VALUE = lower(VALUE) AND VALUE LIKE '%_@_%.__%');
CREATE DOMAIN iban AS text CHECK (VALUE SIMILAR TO '[A-Z]{2}[0-9]{20}');

-- Tenant keys of a domain; the registry and its owner need each other, and no NULL opens the circle.
CREATE TABLE orgs (
    id org_key PRIMARY KEY,
    slug varchar(12) NOT NULL UNIQUE CHECK (slug = lower(slug) AND slug ~ '^[a-z][a-z0-9-]{2,}$'),
    owner_id uuid NOT NULL,
    plan text NOT NULL CHECK (plan IN ('free', 'team')),
    seats smallint NOT NULL,
    CHECK ((plan = 'free' AND seats BETWEEN 1 AND 3) OR (plan = 'team' AND seats > 3)));
CREATE TABLE users (
    org_id org_key NOT NULL REFERENCES orgs,
    user_id uuid NOT NULL,
    email email NOT NULL,
    manager uuid,
    PRIMARY KEY (org_id, user_id),
    FOREIGN KEY (org_id, manager) REFERENCES users (org_id, user_id));
CREATE UNIQUE INDEX users_email ON users (lower(email));
ALTER TABLE orgs ADD FOREIGN KEY (id, owner_id) REFERENCES users (org_id, user_id);

-- Roles of members are in a policy only; one founder per organisation.
CREATE TABLE members (
    org_id org_key NOT NULL,
    user_id uuid NOT NULL,
    level text NOT NULL DEFAULT 'guest',
    revoked_at timestamptz,
    PRIMARY KEY (org_id, user_id),
    FOREIGN KEY (org_id, user_id) REFERENCES users);

-- A cycle of three, composite, deferrable.
CREATE TABLE boards (
    org_id org_key NOT NULL, board ulid NOT NULL, first_list ulid NOT NULL, PRIMARY KEY (org_id, board));
CREATE TABLE lists (
    org_id org_key NOT NULL, list ulid NOT NULL, board ulid NOT NULL, top_card ulid NOT NULL,
    PRIMARY KEY (org_id, list), FOREIGN KEY (org_id, board) REFERENCES boards);
CREATE TABLE cards (
    org_id org_key NOT NULL, card ulid NOT NULL, list ulid NOT NULL, points integer NOT NULL CHECK (points IN (1, 2, 3, 5, 8)),
    PRIMARY KEY (org_id, card), FOREIGN KEY (org_id, list) REFERENCES lists DEFERRABLE);
ALTER TABLE lists ADD FOREIGN KEY (org_id, top_card) REFERENCES cards DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE boards ADD FOREIGN KEY (org_id, first_list) REFERENCES lists;

-- Types.
CREATE TABLE things (
    id ksuid PRIMARY KEY,
    org_id org_key NOT NULL REFERENCES orgs,
    home address NOT NULL, homes address[] NOT NULL,
    stages stage[] NOT NULL CHECK (cardinality(stages) > 0), skus sku[] NOT NULL CHECK (array_length(skus, 1) = 2),
    span floatrange NOT NULL, days datemultirange NOT NULL, whole int4range NOT NULL CHECK (NOT isempty(whole)),
    flags bit(6) NOT NULL, mask bit varying(4) NOT NULL, words tsvector NOT NULL, raw bytea NOT NULL CHECK (octet_length(raw) = 16),
    host inet NOT NULL, net cidr NOT NULL, mac macaddr NOT NULL, spot point NOT NULL, area polygon NOT NULL,
    paid money NOT NULL, gap interval NOT NULL, cents numeric(6, 2) NOT NULL, odd opaque NOT NULL, part share NOT NULL, account iban NOT NULL,
    doc jsonb NOT NULL CHECK (jsonb_typeof(doc -> 'items') = 'array' AND doc ->> 'kind' IN ('a', 'b')),
    path jsonpath, lsn pg_lsn NOT NULL, at timetz NOT NULL);

-- Linked CHECKs, computed columns.
CREATE TABLE invoices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id org_key NOT NULL REFERENCES orgs,
    stage stage NOT NULL DEFAULT 'draft', sent_at timestamptz, paid_at timestamptz,
    net numeric(10, 2) NOT NULL CHECK (net > 0), rate numeric(4, 3) NOT NULL CHECK (rate IN (0, 0.07, 0.19)),
    gross numeric(12, 2) NOT NULL,
    total numeric GENERATED ALWAYS AS (net * 2) STORED,
    starts date NOT NULL, ends date NOT NULL, checksum text NOT NULL, number text NOT NULL,
    UNIQUE (org_id, number),
    CHECK (gross = round(net * (1 + rate), 2)),
    CHECK ((stage = 'paid') = (paid_at IS NOT NULL)), CHECK (stage <> 'sent' OR sent_at IS NOT NULL), CHECK (paid_at > sent_at),
    CHECK (ends = starts + 30), CHECK (total < 100000000), CHECK (checksum = md5(number)),
    CHECK (number ~ '^INV-[0-9]{4}-[0-9]{5}$'));

-- Transfers between two different own accounts.
CREATE TABLE accounts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id org_key NOT NULL REFERENCES orgs, label text NOT NULL, main boolean NOT NULL,
    UNIQUE (org_id, id));
CREATE UNIQUE INDEX one_main ON accounts (org_id) WHERE main;
CREATE TABLE transfers (
    id uuid PRIMARY KEY, org_id org_key NOT NULL, source uuid NOT NULL, target uuid NOT NULL, amount integer NOT NULL,
    FOREIGN KEY (org_id, source) REFERENCES accounts (org_id, id), FOREIGN KEY (org_id, target) REFERENCES accounts (org_id, id),
    CHECK (source <> target), CHECK (amount % 7 = 0 AND amount > 0));

-- Exclusion, NULLS NOT DISTINCT (left out before 15), expressions.
CREATE TABLE bookings (
    id integer PRIMARY KEY, org_id org_key NOT NULL REFERENCES orgs, during tstzrange NOT NULL, room integer, code text NOT NULL,
    EXCLUDE USING gist (during WITH &&), UNIQUE NULLS NOT DISTINCT (org_id, room));
CREATE UNIQUE INDEX ON bookings (upper(code), org_id);

-- Partitions: a list of regions, below it ranges by month with a default, and hashes.
CREATE TABLE events (
    org_id org_key NOT NULL, region text NOT NULL, at timestamptz NOT NULL, what text NOT NULL) PARTITION BY LIST (region);
CREATE TABLE events_eu PARTITION OF events FOR VALUES IN ('eu', 'uk') PARTITION BY RANGE (at);
CREATE TABLE events_eu_1 PARTITION OF events_eu FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE events_eu_2 PARTITION OF events_eu FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE events_us PARTITION OF events FOR VALUES IN ('us');
CREATE TABLE shards (org_id org_key NOT NULL, item integer NOT NULL, note text) PARTITION BY HASH (item);
CREATE TABLE shards_0 PARTITION OF shards FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE shards_1 PARTITION OF shards FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE shards_2 PARTITION OF shards FOR VALUES WITH (MODULUS 3, REMAINDER 2);
CREATE TABLE folded (org_id org_key NOT NULL, name text NOT NULL, weight integer NOT NULL) PARTITION BY LIST (lower(name));
CREATE TABLE folded_a PARTITION OF folded FOR VALUES IN ('alpha', 'beta');
CREATE TABLE folded_rest PARTITION OF folded DEFAULT;

-- Triggers that refuse, fill in, and create rows elsewhere.
CREATE TABLE jobs (
    id serial PRIMARY KEY, org_id org_key NOT NULL DEFAULT current_setting('app.org'), kind text NOT NULL, priority integer NOT NULL,
    created_by text NOT NULL);
CREATE FUNCTION jobs_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind NOT IN ('import', 'export') THEN RAISE EXCEPTION 'no such job'; END IF;
    IF NEW.priority NOT BETWEEN 3 AND 5 THEN RAISE EXCEPTION 'out of range'; END IF;
    IF NEW.org_id <> current_setting('app.org') THEN RAISE EXCEPTION 'not your organisation'; END IF;
    NEW.created_by := current_setting('app.org');
    RETURN NEW;
END $$;
CREATE TRIGGER jobs_check BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_check();
CREATE TABLE job_log (id serial PRIMARY KEY, org_id org_key NOT NULL, said text NOT NULL);
CREATE FUNCTION job_said() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_log (org_id, said) VALUES (NEW.org_id, 'job ' || NEW.id || ' of ' || NEW.org_id); RETURN NULL;
END $$;
CREATE TRIGGER job_said AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION job_said();
CREATE FUNCTION only_inside() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF pg_trigger_depth() < 2 THEN RAISE EXCEPTION 'the log is written by triggers'; END IF; RETURN NEW; END $$;
CREATE TRIGGER only_inside BEFORE INSERT ON job_log FOR EACH ROW EXECUTE FUNCTION only_inside();

-- Rows that only a function makes.
CREATE TABLE receipts (id serial PRIMARY KEY, org_id org_key NOT NULL REFERENCES orgs, amount integer NOT NULL);
CREATE FUNCTION receipts_door() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF current_user <> 'z_clerk' THEN RAISE EXCEPTION 'call add_receipt'; END IF; RETURN NEW; END $$;
CREATE TRIGGER receipts_door BEFORE INSERT ON receipts FOR EACH ROW EXECUTE FUNCTION receipts_door();
CREATE FUNCTION add_receipt(p_org_id text, p_amount integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF p_org_id <> current_setting('app.org') THEN RAISE EXCEPTION 'not your organisation'; END IF;
    INSERT INTO receipts (org_id, amount) VALUES (p_org_id, p_amount), (p_org_id, p_amount + 1);
END $$;
ALTER FUNCTION add_receipt OWNER TO z_clerk;

-- A row that nothing but a switched-off trigger lets in.
CREATE TABLE sealed (id integer PRIMARY KEY, org_id org_key NOT NULL REFERENCES orgs, body text NOT NULL);
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'sealed since 2019'; END $$;
CREATE TRIGGER never BEFORE INSERT ON sealed FOR EACH ROW EXECUTE FUNCTION never();

-- Children without a key of their own, a tree, and nothing but keys.
CREATE TABLE nodes (id integer PRIMARY KEY, org_id org_key NOT NULL REFERENCES orgs, parent integer NOT NULL REFERENCES nodes);
CREATE TABLE lines (invoice bigint NOT NULL REFERENCES invoices, line integer NOT NULL CHECK (line > 0), what text NOT NULL, PRIMARY KEY (invoice, line));
CREATE TABLE tags (org_id org_key NOT NULL REFERENCES orgs, tag text NOT NULL, PRIMARY KEY (org_id, tag));

CREATE TABLE countries (code char(2) PRIMARY KEY CHECK (code ~ '^[A-Z]{2}$'), name text NOT NULL);

CREATE FUNCTION acting_org() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('app.org', true) $$;
DO $$
DECLARE one text;
BEGIN
    FOREACH one IN ARRAY ARRAY['users', 'boards', 'lists', 'cards', 'things', 'invoices', 'accounts', 'transfers', 'bookings',
        'events', 'shards', 'folded', 'jobs', 'job_log', 'receipts', 'sealed', 'nodes', 'tags'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', one);
        EXECUTE format('CREATE POLICY own ON %I USING (org_id = acting_org())', one);
    END LOOP;
END $$;
ALTER TABLE orgs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON orgs USING (id = acting_org());
ALTER TABLE members ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON members USING (org_id = acting_org() AND level IN ('owner', 'clerk') AND revoked_at IS NULL);
ALTER TABLE lines ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON lines USING (EXISTS (SELECT FROM invoices i WHERE i.id = invoice AND i.org_id = acting_org()));
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO z_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO z_app;
GRANT SELECT, INSERT ON receipts TO z_clerk;
GRANT USAGE ON SEQUENCE receipts_id_seq TO z_clerk;
REVOKE ALL ON events_eu, events_eu_1, events_eu_2, events_us, shards_0, shards_1, shards_2, folded_a, folded_rest FROM z_app;
REVOKE INSERT, UPDATE, DELETE ON countries FROM z_app;
