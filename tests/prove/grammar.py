"""Random conditions over columns k_int, k_text, a, f and the settings app.x and app.y, as SQL."""

from hypothesis import strategies as st

X, Y = "current_setting('app.x', true)", "current_setting('app.y', true)"


def texts(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from([X, Y, "current_setting('app.x')", "k_text", "of_plpgsql()", "''::text", "'1'::text"])
    if depth == 0:
        return leaves
    t, i, b = texts(depth - 1), ints(depth - 1), bools(depth - 1)
    return st.one_of(
        leaves,
        st.tuples(t, t).map("NULLIF({0[0]}, {0[1]})".format),
        st.tuples(t, t).map("COALESCE({0[0]}, {0[1]})".format),
        t.map("NULLIF({}, '')".format),
        i.map("({})::text".format),
        t.map("(SELECT {})".format),
        st.tuples(b, t, t).map("CASE WHEN {0[0]} THEN {0[1]} ELSE {0[2]} END".format),
        st.tuples(st.sampled_from(["lower", "upper", "reverse", "btrim"]), t).map("{0[0]}({0[1]})".format),
        st.tuples(t, t).map("({0[0]} || {0[1]})".format),
        t.map("substr({}, 1, 1)".format),
        st.tuples(t, st.sampled_from("12")).map("split_part({0[0]}, ',', {0[1]})".format),
    )


def ints(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["k_int", "a", "of_sql()", "1", "NULL::int", f"NULLIF({X}, '')::int", f"({Y})::int"])
    if depth == 0:
        return leaves
    t, i, b = texts(depth - 1), ints(depth - 1), bools(depth - 1)
    return st.one_of(
        leaves,
        t.map("({})::int".format),
        st.tuples(i, i).map("COALESCE({0[0]}, {0[1]})".format),
        st.tuples(i, i).map("NULLIF({0[0]}, {0[1]})".format),
        st.tuples(b, i).map("CASE WHEN {0[0]} THEN {0[1]} END".format),
        i.map("({})::bigint::int".format),
        st.tuples(i, st.sampled_from(["% 2", "+ 1", "* 2", "- 1"])).map("({0[0]} {0[1]})".format),
        t.map("length({})".format),
        t.map("(SELECT min(m.k) FROM m WHERE m.u = {})".format),
        t.map("(SELECT m.k FROM m WHERE m.u = {} LIMIT 1)".format),
    )


def bools(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(
        [
            "f",
            "true",
            "false",
            f"k_text = {X}",
            "k_int = of_sql()",
            f"k_int::text = {Y}",
            "a = k_int",
            f"{X} IS NULL",
        ]
    )
    if depth == 0:
        return leaves
    t, i, b = texts(depth - 1), ints(depth - 1), bools(depth - 1)
    operator = st.sampled_from(["=", "<>", "IS DISTINCT FROM", "IS NOT DISTINCT FROM", "<", ">="])
    return st.one_of(
        leaves,
        st.tuples(t, operator, t).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(i, operator, i).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(b, b).map("({0[0]} AND {0[1]})".format),
        st.tuples(b, b).map("({0[0]} OR {0[1]})".format),
        b.map("(NOT {})".format),
        st.tuples(b, st.sampled_from(["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN", "NOT UNKNOWN"])).map(
            "({0[0]} IS {0[1]})".format
        ),
        st.tuples(st.one_of(t, i), st.sampled_from(["NULL", "NOT NULL"])).map("({0[0]} IS {0[1]})".format),
        st.tuples(i, i, i, st.sampled_from(["IN", "NOT IN"])).map("({0[0]} {0[3]} ({0[1]}, {0[2]}))".format),
        st.tuples(b, b, b).map("CASE WHEN {0[0]} THEN {0[1]} ELSE {0[2]} END".format),
        st.tuples(b, b).map("COALESCE({0[0]}, {0[1]})".format),
        st.tuples(i, i).map("of_argument({0[0]}, {0[1]})".format),
        i.map("opaque({})".format),
        st.tuples(i, t).map("({0[0]} IN (SELECT m.k FROM m WHERE m.u = {0[1]}))".format),
        st.tuples(i, b).map("EXISTS (SELECT FROM m WHERE m.k = {0[0]} AND {0[1]})".format),
        t.map("({})::boolean".format),
        st.tuples(t, st.sampled_from(["LIKE", "NOT LIKE", "ILIKE", "~", "!~", "^@"]), t).map(
            "({0[0]} {0[1]} {0[2]})".format
        ),
        st.tuples(t, st.sampled_from(["1", "%", "1%", "_", "%2", ""])).map("({0[0]} LIKE '{0[1]}')".format),
        st.tuples(t, t).map("({0[0]} = ANY (string_to_array({0[1]}, ',')))".format),
        st.tuples(i, st.sampled_from([X, Y])).map("({0[0]} = ANY (string_to_array({0[1]}, ',')::int[]))".format),
        st.tuples(st.sampled_from([X, Y]), t).map("(NULLIF({0[0]}, '')::jsonb ? {0[1]})".format),
        st.tuples(i, t, i, t, st.sampled_from(["=", "<>", "<", ">="])).map(
            "(({0[0]}, {0[1]}) {0[4]} ({0[2]}, {0[3]}))".format
        ),
        st.tuples(i, t, i, t).map("(({0[0]}, {0[1]}) IN (({0[2]}, {0[3]}), (1, '1')))".format),
        st.tuples(i, t).map("(({0[0]}, {0[1]}) IN (SELECT m.k, m.u FROM m))".format),
    )
