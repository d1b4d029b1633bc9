"""The roles as a drawing: who holds whose privileges, who may become whom, and where row security ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rlsaudit.report import RoleEntry

from ._text import shorten, visible

WIDTH, HEIGHT, ACROSS, DOWN, EDGE = 212, 44, 128, 16, 12
MOST = 40
"""Roles drawn at most; the table beside the drawing lists all."""


@dataclass(frozen=True, slots=True)
class Edge:
    source: str
    target: str
    kind: str
    """``inherit``: privileges held without SET ROLE; ``set``: SET ROLE is allowed."""
    hot: bool


@dataclass(frozen=True, slots=True)
class Graph:
    svg: Markup
    label: str
    drawn: int
    exempt: tuple[str, ...]
    """Roles that row security does not bind, with the reason: ``support_admin (BYPASSRLS)``."""


def exemption(role: RoleEntry) -> str:
    """Why row security does not bind the role by itself; empty when it does."""
    return "superuser" if role.superuser else "BYPASSRLS" if role.bypassrls else role.exempt


def graph(roles: Sequence[RoleEntry]) -> Graph:
    """SVG of at most ``MOST`` roles, those on a path to an exemption and the application's first."""
    known = {role.name: role for role in roles}
    edges = _edges(known)
    hot = {name for edge in edges if edge.hot for name in (edge.source, edge.target)}
    linked = {name for edge in edges for name in (edge.source, edge.target)}
    rank = sorted(
        known.values(),
        key=lambda r: (r.name not in hot, not r.application, not exemption(r), r.name not in linked),
    )
    kept = {role.name: role for role in rank[:MOST]}
    drawn = [edge for edge in edges if edge.source in kept and edge.target in kept]
    places = _places(kept, drawn)
    paths = tuple(
        f"{edge.source} {'may SET ROLE' if edge.kind == 'set' else 'inherits from'} {edge.target}"
        for edge in edges
        if edge.hot
    )
    label = (
        "Role graph. " + ("; ".join(paths[:MOST]) if paths else "No path reaches a role exempt from row security") + "."
    )
    exempt = tuple(f"{role.name} ({exemption(role)})" for role in roles if exemption(role))
    return Graph(_svg(kept, drawn, places), label, len(kept), exempt)


def _edges(known: Mapping[str, RoleEntry]) -> list[Edge]:
    inherits = _reduced({name: _others(role.inherits, name, known) for name, role in known.items()})
    becomes = _reduced(
        {name: [] if role.superuser else _others(role.may_set, name, known) for name, role in known.items()}
    )
    by_attribute = {name for name, role in known.items() if role.superuser or role.bypassrls}
    by_ownership = {name for name, role in known.items() if role.exempt} - by_attribute
    # Attributes are not inherited, only SET ROLE reaches them; the rights of an owner are inherited as well.
    either = {name: [*inherits[name], *becomes[name]] for name in known}
    reaches_attribute = _reaching(by_attribute, becomes)
    reaches_owner = _reaching(by_ownership, either)
    edges = []
    for name in known:
        edges += [Edge(name, other, "inherit", other in reaches_owner) for other in inherits[name]]
        for other in becomes[name]:
            edges.append(Edge(name, other, "set", other in reaches_attribute or other in reaches_owner))
    return edges


def _others(names: Sequence[str], own: str, known: Mapping[str, RoleEntry]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name != own and name in known]


def _reduced(edges: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Without the edges that follow from two others: a closure draws as the memberships it came from."""
    return {
        name: list(targets)
        if len(targets) > MOST
        else [far for far in targets if not any(_between(near, far, edges) for near in targets)]
        for name, targets in edges.items()
    }


def _between(near: str, far: str, edges: Mapping[str, Sequence[str]]) -> bool:
    return near != far and far in edges[near] and near not in edges[far]


def _reaching(goals: set[str], edges: Mapping[str, Sequence[str]]) -> set[str]:
    reached = set(goals)
    while more := {name for name, targets in edges.items() if name not in reached and reached.intersection(targets)}:
        reached |= more
    return reached


def _places(roles: Mapping[str, RoleEntry], edges: Sequence[Edge]) -> dict[str, tuple[int, int]]:
    """Upper left corner of every box: a column further right than any role that leads to it."""
    column = dict.fromkeys(roles, 0)
    for _ in range(len(roles)):  # bounded: memberships have no cycles, a damaged file may
        moved = False
        for edge in edges:
            if column[edge.target] <= column[edge.source] < len(roles):
                column[edge.target], moved = column[edge.source] + 1, True
        if not moved:
            break
    levels = {level: number for number, level in enumerate(sorted(set(column.values())))}
    linked = {name for edge in edges for name in (edge.source, edge.target)}
    places: dict[str, tuple[int, int]] = {}
    for level, number in levels.items():
        members = [name for name in roles if column[name] == level]
        weight = {name: _pull(name, edges, places) for name in members}
        members.sort(key=lambda name: (name not in linked, weight[name]))
        for row, name in enumerate(members):
            places[name] = (EDGE + number * (WIDTH + ACROSS), EDGE + row * (HEIGHT + DOWN))
    return places


def _pull(name: str, edges: Sequence[Edge], places: Mapping[str, tuple[int, int]]) -> float:
    """Mean height of the roles that lead here, so that lines cross little."""
    sources = [places[edge.source][1] for edge in edges if edge.target == name and edge.source in places]
    return sum(sources) / len(sources) if sources else 0.0


def _svg(roles: Mapping[str, RoleEntry], edges: Sequence[Edge], places: Mapping[str, tuple[int, int]]) -> Markup:
    if not roles:
        return Markup("")
    width = max(x for x, _ in places.values()) + WIDTH + EDGE
    height = max(y for _, y in places.values()) + HEIGHT + EDGE
    pairs = {(edge.source, edge.target, edge.kind) for edge in edges}
    parts = [
        Markup('<svg width="{0}" height="{1}" viewBox="0 0 {0} {1}" aria-hidden="true">').format(width, height),
        _marker("arrow", "ah"),
        _marker("arrowhot", "ahh"),
    ]
    parts += [_line(edge, pairs, places) for edge in sorted(edges, key=lambda e: e.hot)]
    parts += [_box(role, *places[name]) for name, role in roles.items()]
    return Markup("").join([*parts, Markup("</svg>")])


def _marker(name: str, style: str) -> Markup:
    return Markup(
        '<defs><marker id="{}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto" markerUnits="userSpaceOnUse"><path class="{}" d="M0 0L8 4L0 8z"/></marker></defs>'
    ).format(name, style)


def _line(edge: Edge, pairs: set[tuple[str, str, str]], places: Mapping[str, tuple[int, int]]) -> Markup:
    (left, top), (right, bottom) = places[edge.source], places[edge.target]
    twin = (edge.source, edge.target, "inherit" if edge.kind == "set" else "set") in pairs
    shift = (6 if edge.kind == "set" else -6) if twin else 0
    x1, y1, x2, y2 = left + WIDTH, top + HEIGHT // 2 + shift, right - 2, bottom + HEIGHT // 2 + shift
    bend = max((x2 - x1) // 2, 30)
    return Markup('<path class="{}{}" d="M{} {}C{} {} {} {} {} {}" marker-end="url(#{})"/>').format(
        edge.kind, " hot" if edge.hot else "", x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2,
        "arrowhot" if edge.hot else "arrow",
    )  # fmt: skip


def _box(role: RoleEntry, x: int, y: int) -> Markup:
    facts = [exemption(role)] if exemption(role) else []
    facts += [word for word, holds in (("login", role.login), ("application", role.application)) if holds]
    if role.owns:
        facts.append(f"owns {role.owns:,}")
    style = "bad" if exemption(role) else ""
    title, below = shorten(visible(role.name), 24), shorten(visible(" · ".join(facts) or "group role"), 34)
    parts = (
        Markup("<g><title>{}</title>").format(visible(role.name)),
        Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="8"/>').format(style, x, y, WIDTH, HEIGHT),
        Markup('<text class="m {}" x="{}" y="{}">{}</text>').format(style, x + 13, y + 19, title),
        Markup('<text class="sub2" x="{}" y="{}">{}</text></g>').format(x + 13, y + 35, below),
    )
    return Markup("").join(parts)
