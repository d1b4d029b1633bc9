"""What changed between two states of a schema: for a terminal, a pull request, a program, and beside the lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rlsaudit import evidence
from rlsaudit.diff.change import Change, Difference, Format, Level

from ._annotations import command, most
from ._markdown import block, code, prose
from ._text import count, lines, shorten, visible, wrap

_GLYPHS = {"SAFE": "✅", "REVIEW": "🔎", "DANGEROUS": "❌", "NOT TRUSTWORTHY": "⚠️"}
_COLOURS = {"SAFE": "32", "REVIEW": "33", "DANGEROUS": "31", "NOT TRUSTWORTHY": "33"}
_HEADINGS: dict[Level, str] = {"dangerous": "Dangerous", "review": "For review", "note": "Also changed"}
_ANNOTATIONS: dict[Level, str] = {"dangerous": "error", "review": "warning"}
_ROOM = 60_000
"""Bytes of a comment; GitHub refuses more than 65,536 characters."""
_MOST = 30


def render(difference: Difference, form: Format, width: int = 80, color: bool = False) -> str:
    writers: dict[Format, Callable[[], str]] = {
        "text": lambda: _terminal(difference, max(width, 72), color),
        "markdown": lambda: _markdown(difference),
        "json": lambda: evidence.written({"difference": evidence.plain(difference)}),
        "github": lambda: _annotations(difference),
    }
    return writers[form]()


def _terminal(difference: Difference, width: int, color: bool) -> str:
    word = difference.verdict
    shown = f"\x1b[1;{_COLOURS[word]}m{word}\x1b[0m" if color else word
    head = wrap(difference.sentence, width, " " * (len(word) + 2), f"{word}  ").removeprefix(word)
    blocks = [f"{shown}{head}", wrap(_figures(difference), width, "  ", "  ")]
    for level, heading in _HEADINGS.items():
        mine = [one for one in difference.changes if one.level == level]
        if mine:
            rows = [row for one in mine[:_MOST] for row in _told(one, width)]
            left = [f"  … and {len(mine) - _MOST} more: --format json has them all"] if len(mine) > _MOST else []
            blocks.append("\n".join([f"{heading} ({len(mine)})", *rows, *left]))
    blocks += [wrap(note, width, "  ", "- ") for note in (*difference.distrust, *difference.notes)]
    return "\n\n".join([*blocks[:2], *blocks[2:], f"Exit code {difference.exit_code}"]) + "\n"


def _told(change: Change, width: int) -> Iterator[str]:
    if change.level == "note":
        yield wrap(f"{change.object}: {_title(change)}", width, "      ", "  - ")
        return
    yield wrap(f"{change.object}: {_title(change)}", width, "    ", "  * ")
    if _whom(change):
        yield wrap(_whom(change), width, "    ")
    if change.file:
        yield f"    --> {shorten(visible(change.file), width - 20)}:{change.line}"
    if change.detail:
        yield wrap(change.detail, width, "    ")
    if change.witness:
        first, *rest = lines(change.witness).strip().split("\n")
        yield wrap(f"witness: {first}", width, "      ", "    ")
        yield from (f"      {shorten(line, width - 6)}" for line in rest[:8])
    if change.fix:
        yield wrap(f"fix: {' '.join(change.fix.split())}", width, "      ", "    ")


def _title(change: Change) -> str:
    what = f"{change.kind}: " if change.title.lower() != change.kind else ""
    tail = (
        f" ({change.check}, {change.severity})" if change.check else f" ({change.severity})" if change.severity else ""
    )
    return f"{what}{change.title}{tail}"


def _whom(change: Change) -> str:
    commands, roles = ", ".join(change.commands), ", ".join(change.roles)
    return f"{commands} as {roles}" if commands and roles else commands or (f"role {roles}" if roles else "")


def _figures(difference: Difference) -> str:
    attacked = ", ".join(difference.probed[:6]) + (" …" if len(difference.probed) > 6 else "")
    tried = (
        f"attacked again: {attacked} ({count(difference.statements, 'statement')})" if attacked else "nothing attacked"
    )
    same = f"{count(difference.unchanged, 'tenant relation')} unchanged and not tested again"
    return f"{difference.base} → {difference.head}: {tried}; {same}; {difference.seconds:.1f} s"


def _markdown(difference: Difference) -> str:
    parts = [
        f"## {_GLYPHS[difference.verdict]} rlsaudit diff: {difference.verdict}",
        prose(difference.sentence),
        prose(_figures(difference)),
    ]
    for level, heading in _HEADINGS.items():
        mine = [one for one in difference.changes if one.level == level]
        if mine:
            made = [_item(one) for one in mine]
            body = _fitting(made, _ROOM // (2 if level == "dangerous" else 5))
            title = f"{heading} ({len(mine)})"
            folded = f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
            parts.append(folded if level == "note" else f"### {title}\n\n{body}")
    said = [f"- {prose(note)}" for note in (*difference.distrust, *difference.notes)]
    parts.append(_fitting(said, _ROOM // 10))
    return "\n\n".join(part for part in parts if part) + "\n"


def _item(change: Change) -> str:
    head = f"{code(change.object)} · {prose(_title(change))}"
    place = f" · {code(f'{change.file}:{change.line}')}" if change.file else ""
    if change.level == "note":
        return f"- {head}{place}"
    rows = [f"#### {head}", "", f"{prose(_whom(change))}{place}".removeprefix(" · ")]
    rows += ["", prose(change.detail)] if change.detail else []
    rows += (
        ["", "Witness:", "", block(change.witness, "sql" if change.kind == "opened" else "text")]
        if change.witness
        else []
    )
    rows += ["", "Fix:", "", block(change.fix)] if change.fix else []
    return "\n".join([*rows, ""])


def _fitting(items: Sequence[str], room: int) -> str:
    kept: list[str] = []
    for one in items:
        size = len(one.encode()) + 1
        if size <= room:
            kept.append(one)
            room -= size
    left = len(items) - len(kept)
    return "\n".join([*kept, *([f"\n*{left:,} more are left out here; --format json has them all.*"] if left else [])])


def _annotations(difference: Difference) -> str:
    rows = []
    for level, kind in _ANNOTATIONS.items():
        mine = [one for one in difference.changes if one.level == level]
        told = [
            command(kind, one.file or "rlsaudit.toml", one.line or 1, f"{one.object}: {one.title}", _message(one))
            for one in mine
        ]
        rows += most(told, kind)
    if difference.distrust:
        rows.append(command("error", "rlsaudit.toml", 1, "rlsaudit", difference.sentence))
    return "".join(f"{row}\n" for row in rows)


def _message(change: Change) -> str:
    witness = f"\nWitness: {change.witness}" if change.witness else ""
    fix = f"\nFix:\n{change.fix}" if change.fix else ""
    return f"{_whom(change)}\n{change.detail}{witness}{fix}".strip()
