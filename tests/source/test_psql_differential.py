"""What psql makes of a script and what we make of it must be the same database.

VACUUM stands where a missed end of a statement would otherwise go unseen: it refuses to run beside another one.
"""

from __future__ import annotations

import itertools

import pytest

from rlsaudit.source.files import SqlFile
from rlsaudit.source.load import load_sql
from rlsaudit.source.server import ScratchServer

_numbers = itertools.count(1)

SCRIPTS = {
    "quotes": r"""
create table t(a text); insert into t values ('a;b'), ('it''s;'), (E'a\';b'), (E'\\'), ('\');
insert into t values ($$a;b$$), ($x$a;$$;b$x$), ($x$a$x;$x$), (U&'d\0061t;'), (N'n;'), (B'1'::text), (X'1F'::text);
insert into t values ($é$;$é$), ('multi
line;'), (E'con'
  'tin\';ued;'), ('a' -- comment ; '
  'b;');
create table "q;t" ("c;""d" int); insert into "q;t" values (1);
""",
    "comments": r"""
-- create table no(a int); '
/* create table no(a int); /* nested ; */ ' still ; */ create table t(a int); /* tail */
create /* ; */ table u -- ;
 (a int /* ' */ default 3--;
 );
select 1 +-- comment;
 2; select 3 /*x*/*/*y*/4;
create table v(); vacuum v;
""",
    "parentheses": r"""
create table t(a int, b int); create rule r as on insert to t do also (select 1; select 2);
create table u(a int); select (1); ; ;; create table w(); vacuum w;
""",
    "begin atomic": r"""
create table t(a int);
create function f(x int) returns int language sql begin atomic
  insert into t values (x); select case when x > 1 then case x when 2 then 3 end else 4 end; end;
create or replace procedure p(x int) begin atomic insert into t values (x); insert into t values (x + 1); end;
call p(5); select f(1); create table begin_(a int);
create table "case"(a int); create function b(begin int) returns int language sql as 'select 1'; vacuum t; create table after_b();
create function g() returns int language plpgsql as $$ begin if true then return 1; end if; end $$;
begin; create table in_transaction(); commit; begin; create table undone(); rollback;
create or replace function h(a int default (1)) returns int return case when a = 1 then 2 end; vacuum t;
""",
    "copy": "create table t(a text, b int);\ncopy t from stdin; create table same_line(a int);\na;b\t1\n\\\\x\t2\n'\t\\N\n\\.\n"
    'copy t (b, a) from STDIN with (format csv);\n3,"x;y\n--z"\n\\.\ncopy t from stdin;\n\\.\ncreate table after_();\n'
    "COPY t(a) FROM /* c */ stdin \\g\nlast\n\\.\ncopy (select 1) to stdout;\ncopy t to stdout;\n"
    "\\copy t(a) from stdin\nclient\n\\.\n",
    "two copies in a line": "create table t(a int);copy t from stdin; copy t from stdin;\n1\n\\.\n2\n\\.\ninsert into t values (3);",
    "copy without end": "create table t(a int);\ncopy t from stdin;\n1\n2\n",
    "copy with crlf": "create table t(a text);\r\ncopy t from stdin;\r\nx\r\n\\.\r\ninsert into t values ('y');\r\n",
    "variables": r"""
\set name 'my table'
\set val 'it''s'
\set num 4
\set sql 'insert into t values (1); insert into t values (2)'
create table t(a int); create table :"name" (a text, b int);
insert into :"name" values (:'val', :num); insert into :"name" values (':num', 5);
:sql; :sql , (3);
insert into :"name" values (:'val'':num', 1);
create table arrays(a int[]); insert into arrays values ('{1,2,3}'); select a[1:2], a[:num], a [ :num : 2] from arrays;
select :{?num}, :{?none}; create table flag(a bool); insert into flag values (:{?num}), (:{?none});
\set cat a b 'c d' :num
create table cat(a text); insert into cat values (:'cat'), ($$:num$$), (E':num'), (':num'); -- :num
\unset num
insert into cat values (':num');
\set back 'a\\b\tc\x41\101'
insert into cat values (:'back');
""",
    "conditions": r"""
\set yes true
\if :yes
create table a();
\if 0 \else create table aa(); \endif
\elif true
create table b();
\else
create table c();
\endif
\if off
 create table d(); ( ' \! ls
 ';
 \if true
 create table e();
 \endif
\elif on
create table f(); \else create table g(); \endif
create table h(a int default 1 \if false
 , b int ( \else
 , c int \endif
 );
\if :{?nothing} \q \endif
create table i();
\if y
\q
\endif
create table unreached();
""",
    "buffer commands": r"""
create table t(a int) \g
select 7 as n, 'x' as m \gset p_
insert into t values (:p_n); select 8 as n \gset
insert into t values (:n) \gx
select format('create table g%s()', i), null from generate_series(1, 2) i \gexec
select 'half' \r
create table rest(); select 1\;select 2; create table semi();
\echo create table no();
\set x 'create table echoed();' \echo :x \\ create table after_backslashes();
select 1 \p
; insert into t values (9)
""",
    "standard_conforming_strings off": r"""
set standard_conforming_strings = off; set escape_string_warning = off;
create table t(a text); insert into t values ('a\';b'); insert into t values ('\\');
set standard_conforming_strings = on; insert into t values ('\'); create table u();
""",
    "odd tokens": r"""
create table t(a int, a$b int, é int, "É" int); insert into t(a$b) values (1);
prepare p(int, int) as select $1+$2, $1::text, '$$', a$b from t; execute p(1, 2);
do $do$ begin execute $q$create table done()$q$; end $do$; vacuum t; select 1::int:: text; select 2 operator(pg_catalog.+)3;
do language plpgsql $$ begin perform 1; end; $$; create table last_();
""",
    "unterminated last statement": "create table t(); create table u() -- no semicolon",
    "byte order mark": "\ufeffcreate table t();",
}


def dump(server: ScratchServer, name: str) -> list[str]:
    lines = server.dump_schema(name, data=True).splitlines()
    return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]


@pytest.mark.parametrize("name", SCRIPTS)
def test_psql_and_we_make_the_same_database(server: ScratchServer, name: str) -> None:
    script = SCRIPTS[name]
    ours, theirs = (f"{who}_{next(_numbers)}" for who in ("ours", "theirs"))
    for database in (ours, theirs):
        server.create_database(database)
    _, output = server.run_psql(theirs, script, timeout=60)
    load_sql(lambda: server.connect(ours), [SqlFile(script.removeprefix("\ufeff"), "s.sql")])
    assert "ERROR" not in output
    assert dump(server, ours) == dump(server, theirs)
    assert "CREATE TABLE" in "\n".join(dump(server, theirs))
