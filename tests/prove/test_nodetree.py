"""The reader of pg_node_tree text: shapes, escapes, and refusal of everything else."""

import pytest

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.nodetree import Node, NodeTreeError, nodes_in, parse, parse_value


def test_fields_lists_and_nulls() -> None:
    node = parse('{RTE :alias <> :name "" :cols ("user_id" "a\\ b") :ids (o 96 98) :set (b) :none () :deep ({A :x 1})}')
    assert node.fields == {
        "alias": None,
        "name": "",
        "cols": ("user_id", "a b"),
        "ids": (96, 98),
        "set": (),
        "none": (),
        "deep": (Node("A", {"x": "1"}),),
    }


def test_tokens_that_look_like_syntax() -> None:
    node = parse(r"{A :a \<> :b \"quoted\" :c a\{b\}\(c\)\ d :d :colon :e \\back}")
    assert [*node.fields.values()] == ["<>", '"quoted"', "a{b}(c) d", ":colon", "\\back"]


def test_datum_is_unsigned_bytes() -> None:
    assert parse("{CONST :constvalue 4 [ 1 0 0 -1 0 0 0 0 ]}").get("constvalue") == b"\x01\0\0\xff\0\0\0\0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{A",
        "{A :x}",
        "{A :x 1",
        "{A x 1}",
        "{A :x 1 :x 2}",
        "{a :x 1}",
        "{A :x 1} {B}",
        "{A :x (o 1 two)}",
        "{A :x 9 [ 1 2 ]}",
        "{A :x 1 [ 1 x ]}",
        '{A :x "open}',
        "{A :x )}",
        "plain",
        "(1 2)",
        "{A :x \\",
        "{A :x " * 300 + "1" + "}" * 300,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(NodeTreeError):
        parse(text)


def test_accessors_refuse_another_shape() -> None:
    node = parse("{A :x 1 :y {B} :z maybe}")
    for read in (
        lambda: node.node("x"),
        lambda: node.nodes("x"),
        lambda: node.integer("z"),
        lambda: node.flag("z"),
        lambda: node.text("y"),
        lambda: node.get("w"),
    ):
        with pytest.raises(NodeTreeError):
            read()


def test_every_tree_of_a_server_is_read(load) -> None:
    catalog: Catalog = load(
        """CREATE TABLE "we {ird} (t)" (id int, "a b" text, "}" text[]);
        CREATE POLICY p ON "we {ird} (t)" USING ("a b" = '\\ {(' AND "}" @> ARRAY['<>', ''] AND EXISTS
          (WITH "<>" AS (SELECT 1 AS "1x") SELECT FROM "<>" ":x" LEFT JOIN LATERAL
           (SELECT max(id) FROM "we {ird} (t)" GROUP BY GROUPING SETS ((), (id))) s ON true
           WHERE ":x"."1x" = id));
        CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;"""
    )
    tree = catalog.policies[0].using_tree
    assert tree is not None
    assert {"CONST", "VAR", "SUBLINK"} <= {node.tag for node in parse(tree).walk()}
    body = next(f.body_tree for f in catalog.functions if f.name == "f")
    assert body is not None
    assert sum(node.tag == "QUERY" for node in nodes_in(parse_value(body))) == 2
