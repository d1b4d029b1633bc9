"""Which values stand for no tenant at all."""

_WORDS = frozenset(
    {
        "", "none", "null", "nil", "nobody", "no_tenant", "no-tenant", "notenant", "unset", "unknown", "invalid", "missing",
        "undefined", "n/a", "__none__", "__unset__", "empty",
    }
)  # fmt: skip


def nobody(value: str) -> bool:
    """Whether a value is one that no tenant has by convention: empty, zero, negative, the nil UUID, ``none``."""
    plain = value.strip().lower()
    if plain in _WORDS or plain.startswith("-"):
        return True
    return bool(plain) and set(plain) <= set("0-{}")
