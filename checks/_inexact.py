"""Comparisons of the tenant key that take other tenants' keys for the session's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._apart import kept_apart, longest
from rlsaudit.checks._image import cut, generated_columns, losses

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, walk
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.outcome import Condition
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.finding import Severity

HOW: dict[str, tuple[Severity, str]] = {
    "negated": ("critical", "{key} is required to differ from it"),
    "range": ("critical", "{key} is only ordered against it, and every key on that side passes"),
    "prefix": ("critical", "{key} only has to begin with it, as 11 begins with 1"),
    "substring": ("critical", "one only has to occur in the other, as acme does in acme2"),
    "all": ("critical", "{key} is held against all items of a list, which is true when the list is empty"),
    "similar": ("critical", "{key} only has to be similar to it"),
    "part": ("critical", "only a part of {key} is compared, which tenants can have in common"),
    "bucket": ("critical", "a number that many tenants share is compared instead of {key}"),
    "rounded": ("high", "{key} is rounded before it is compared"),
    "wildcard": ("high", "one side is a pattern, so characters such as _ and % in it match other keys"),
    "case": ("high", "letters are folded first, and nothing keeps tenants from differing by case alone"),
    "hash": ("high", "a hash of 32 bits is compared, which different tenants can share"),
    "float": ("high", "{key} is compared as a floating point number, which takes neighbours above 2^53 for one"),
    "truncated": ("high", "{key} is cut to a length first, and longer keys become the same"),
    "collation": ("high", "the collation or operator may call different keys equal"),
    "short prefix": (
        "medium",
        "{key} only has to begin with it: a context that is cut short, or %, opens many tenants",
    ),
    "any pattern": ("medium", "the setting is used as a pattern: a value such as % opens every tenant"),
    "function": ("medium", "{key} goes through a function whose body folds or cuts text"),
    "spaces": ("medium", "spaces are taken away first"),
    "spelling": ("low", "different spellings of one value pass for one tenant"),
}
"""How a comparison is inexact, worst first."""

_LIKE = {"~~": "wildcard", "~~*": "case", "~": "substring", "~*": "substring", "^@": "prefix"}
_NOT_LIKE = frozenset({"!~~", "!~~*", "!~", "!~*", "<>", "!="})
_ORDER = frozenset({"<", "<=", ">", ">="})
_CALLS = {
    "starts_with": "prefix", "regexp_like": "substring", "textregexeq": "substring", "texticregexeq": "substring",
    "like": "wildcard", "textlike": "wildcard", "texticlike": "case", "position": "substring", "strpos": "substring",
    "textpos": "substring", "regexp_count": "substring", "regexp_instr": "substring", "similarity": "similar",
    "word_similarity": "similar", "strict_word_similarity": "similar", "levenshtein": "similar",
    "levenshtein_less_equal": "similar", "difference": "similar",
}  # fmt: skip
_FIXED_LENGTH = frozenset({"uuid"})
_NO_WILDCARD = frozenset({"uuid", "smallint", "integer", "bigint", "numeric"})


@dataclass(frozen=True)
class Key:
    """The tenant key of the relation that a policy stands on."""

    catalog: Catalog
    relation: Relation
    column: Column


def inexactly(condition: Condition, key: Key, foreign: frozenset[Expression] = frozenset()) -> str | None:
    """How the condition holds the key inexactly against the session (or against ``foreign`` columns, which are the
    session's); empty when constraints make it exact, None when it is no such comparison."""
    if condition.value is not True and not isinstance(condition.atom, (e.Distinct, e.Compare, e.Call, e.Subquery)):
        return None
    atom = generated_columns(key.catalog, key.relation, condition.atom)
    found = [how for how in _found(atom, condition.value, key, foreign) if how is not None]
    return min(found, key=lambda how: list(HOW).index(how) if how else len(HOW), default=None)


def _found(atom: Expression, value: bool | None, key: Key, foreign: frozenset[Expression]) -> Iterator[str | None]:
    match atom:
        case e.Compare() if value is True:
            yield _compared(atom, key, foreign)
        case e.Distinct():
            yield _distinct(atom, value, key, foreign)
        case e.InList() if value is True:
            for item in atom.items:
                yield _listed(atom, item, key, foreign)
        case e.AnyArray() if value is True:
            yield _listed(atom, atom.array, key, foreign)
        case e.Call() if value is True and not atom.user:
            yield _called(atom, key, foreign)
        case e.Subquery(kind="any", test=e.Compare() as test) if value is False:
            column = e.bare(test.left)
            if isinstance(column, e.Column) and column.level == 0 and column.name == key.column.name:
                yield "negated"
        case e.Opaque() if value is True and atom.why.startswith("ROWCOMPARE"):
            if any(isinstance(one, e.Setting) for one in walk(atom)) and key.column.name in e.columns(atom):
                yield "range"


def _sides(left: Expression, right: Expression, foreign: frozenset[Expression]) -> Iterator[tuple[Expression, bool]]:
    """The side that is of the row, where the other is of the session; True when it is the left one."""
    if e.depends_on_row(left) and not e.depends_on_row(right) and _theirs(right, foreign):
        yield left, True
    if e.depends_on_row(right) and not e.depends_on_row(left) and _theirs(left, foreign):
        yield right, False


def _theirs(part: Expression, foreign: frozenset[Expression]) -> bool:
    return any(
        isinstance(one, (e.Setting, e.SessionRole, e.Subquery))
        or (isinstance(one, e.Call) and one.user)
        or one in foreign
        for one in walk(part)
    )


def _equality(side: Expression, exact: bool, key: Key) -> str | None:
    lost = losses(side, key.column.name, key.catalog)
    if lost is None:
        return None
    lost = frozenset(how for how in lost if _possible(how, side, key))
    if not exact:
        lost |= {"collation"}
    if not lost or kept_apart(side, key.column, key.relation, key.catalog, lost):
        return ""
    return min(lost, key=list(HOW).index)


def _possible(how: str, side: Expression, key: Key) -> bool:
    """Whether a key of the column's type can lose that way."""
    kind = key.column.base_type
    if how in ("case", "spaces") and kind in _NO_WILDCARD:
        return False
    if how == "case" and kind.endswith("citext"):
        return False
    if how == "truncated":
        return longest(key.catalog, key.relation, key.column) > cut(side)
    return how != "spelling" or kind not in _NO_WILDCARD


def cut_short(anchor: Expression, key: Key) -> str | None:
    """How a value of the session is changed before it is held against the key, so that it may become another's."""
    kind = key.column.base_type
    for part in walk(anchor):
        source = part.argument.type if isinstance(part, e.Cast) else ""
        if isinstance(part, e.Call) and not part.user and len(part.arguments) == 1:
            source = part.arguments[0].type
        if part.type in ("real", "double precision") and source and kind in ("bigint", "numeric"):
            return "float"
        if part.type == "real" and source and kind == "integer":
            return "float"
    whole = cut(anchor)
    return "truncated" if whole and _possible("truncated", anchor, key) else None


def _compared(atom: e.Compare, key: Key, foreign: frozenset[Expression]) -> str | None:
    for side, left in _sides(atom.left, atom.right, foreign):
        if atom.operator in ("=", "=="):
            return _equality(side, atom.exact, key)
        if losses(side, key.column.name, key.catalog) is None and not _mixed(side, key):
            continue
        if atom.operator in _NOT_LIKE:
            return None if atom.exact else "negated"
        if atom.operator in _ORDER:
            return "range"
        if atom.operator in _LIKE:
            other = atom.right if left else atom.left
            return _pattern(_LIKE[atom.operator], side, other, left, key)
        if atom.operator in ("%", "<%", "%>", "<<%", "%>>"):
            return "similar"
        if atom.operator in ("@>", "<@") and (atom.left if not left else atom.right).type.endswith("range"):
            return "range"
    for side, other in ((atom.left, atom.right), (atom.right, atom.left)):
        # position(key in list) > 0, similarity(key, context) > 0.5
        found = _called(side, key, foreign) if isinstance(side, e.Call) and not e.depends_on_row(other) else None
        if found is not None:
            return found
    return None


def _mixed(side: Expression, key: Key) -> bool:
    """A pattern made of the key: ``key || '%'``."""
    return isinstance(side, e.Call) and side.name in ("||", "concat", "format") and key.column.name in e.columns(side)


def _pattern(how: str, side: Expression, other: Expression, key_left: bool, key: Key) -> str:
    first, last = _ends(other if key_left else side)
    kind = key.column.base_type
    if how in ("wildcard", "case"):
        how = "substring" if first.startswith("%") else "prefix" if last.endswith("%") else how
    elif how == "substring" and first.startswith("^"):
        how = "wildcard" if last.endswith("$") else "prefix"
    if how == "prefix" and kind in _FIXED_LENGTH:
        return "short prefix"
    if kind in _FIXED_LENGTH or (kind in _NO_WILDCARD and how in ("wildcard", "case")):
        return "any pattern"
    return how


def _ends(pattern: Expression) -> tuple[str, str]:
    """The constant texts that a pattern made by ``||`` begins and ends with."""
    if isinstance(pattern, e.Constant):
        return pattern.value or "", pattern.value or ""
    if isinstance(pattern, e.Cast):
        return _ends(pattern.argument)
    if isinstance(pattern, e.Call) and pattern.inlined is not None:
        return _ends(pattern.inlined)
    if isinstance(pattern, e.Call) and pattern.name in ("||", "concat", "textcat") and pattern.arguments:
        return _ends(pattern.arguments[0])[0], _ends(pattern.arguments[-1])[1]
    return "", ""


def _called(atom: e.Call, key: Key, foreign: frozenset[Expression]) -> str | None:
    how = _CALLS.get(atom.name)
    if how is None or len(atom.arguments) < 2:
        return None
    for side, left in _sides(atom.arguments[0], atom.arguments[1], foreign):
        if losses(side, key.column.name, key.catalog) is not None or _mixed(side, key):
            other = atom.arguments[1] if left else atom.arguments[0]
            return _pattern(how, side, other, left, key) if how != "similar" else how
    return None


def _distinct(atom: e.Distinct, value: bool | None, key: Key, foreign: frozenset[Expression]) -> str | None:
    for side, _ in _sides(atom.left, atom.right, foreign):
        if value is False:
            return _equality(side, atom.exact, key)
        if value is True and losses(side, key.column.name, key.catalog) is not None:
            return "negated"
    return None


def _listed(atom: e.InList | e.AnyArray, item: Expression, key: Key, foreign: frozenset[Expression]) -> str | None:
    for side, left in _sides(atom.operand, item, foreign):
        if losses(side, key.column.name, key.catalog) is None:
            continue
        if atom.operator == "=" and atom.any:
            return _equality(side, atom.exact, key) if left else None
        if atom.operator == "=":
            return "all" if isinstance(atom, e.AnyArray) else None
        if atom.operator in _NOT_LIKE:
            return "negated"
        if atom.operator in _ORDER:
            return "range"
        if atom.operator in _LIKE:
            return _pattern(_LIKE[atom.operator], side, item, left, key)
    return None
