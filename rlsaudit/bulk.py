"""Frozen values that are made by the hundred thousand."""

from __future__ import annotations

from dataclasses import MISSING, Field, field, fields, make_dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")


def made_in_bulk(frozen: type[Value]) -> type[Value]:
    """Make a frozen dataclass about twice as fast to make.

    ``__init__`` of a frozen dataclass goes around its own guard for every field.  Here the new value belongs to a twin
    without the guard until its fields are set.
    """
    same: Any = object.__setattr__
    slots = "__slots__" in vars(frozen)  # or the twin's values would have another shape
    known = fields(frozen)  # type: ignore[arg-type]
    twin: Any = make_dataclass(frozen.__name__, [(one.name, object, _again(one)) for one in known], slots=slots)
    fill, usual = twin.__init__, frozen.__init__

    def __init__(self: Any, *values: object, **named: object) -> None:  # noqa: N807 - it becomes the class's
        if self.__class__ is not frozen:  # a subclass may have another shape
            usual(self, *values, **named)
            return
        same(self, "__class__", twin)
        fill(self, *values, **named)
        self.__class__ = frozen

    __init__.__qualname__ = f"{frozen.__qualname__}.__init__"
    frozen.__init__ = __init__  # type: ignore[method-assign]
    return frozen


def _again(one: Field[Any]) -> Any:
    if one.default_factory is not MISSING:
        return field(default_factory=one.default_factory)
    return field() if one.default is MISSING else field(default=one.default)
