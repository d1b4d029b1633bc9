"""Text made to order: what regular expressions, LIKE patterns, prefixes and length limits ask for.  Pure.

Nothing here decides whether a value is valid; the server filters what is proposed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from functools import cache

from rlsaudit.probe.ground.hypothesis_home import at_home
from rlsaudit.probe.seeding import regular

_STRING = r"'((?:[^']|'')*)'"
_REGEX = re.compile(rf"(?<!!)~\*?\s*\(?{_STRING}")
_SIMILAR = re.compile(rf"similar_to_escape\({_STRING}")
_FUNCTION = re.compile(rf"regexp_(?:like|count|match)\([^,]+,\s*{_STRING}", re.IGNORECASE)
_LIKE = re.compile(rf"(?<!!)~~\*?\s*{_STRING}|\bI?LIKE\s+{_STRING}", re.IGNORECASE)
_QUOTED = re.compile(_STRING)
_WHOLE = re.compile(r"(?<![\w.'-])(\d{1,3})(?![\w'.])")
_POSIX_CLASS = re.compile(r"\[:(\w+):\]")
_POSIX = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z", "lower": "a-z", "xdigit": "0-9a-fA-F",
    "word": "a-zA-Z0-9_", "space": " ", "blank": " ", "punct": "!-/:-@",
}  # fmt: skip
_EXAMPLES = 60
_KEPT = 24
_MADE = 10
_ALPHABETS = ("0123456789", "0123456789abcdef", "0123456789ABCDEFGHJKMNPQRSTVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def wanted_text(expressions: Iterable[str], word: str, number: int) -> tuple[str, ...]:
    """Strings that the text of CHECKs may be after, with ``word`` or else ``number`` woven in, so that none comes twice."""
    found: list[str] = []
    for expression in expressions:
        found += from_patterns(expression, number)
        found += like_values(expression, word, number)
        constants = [text.replace("''", "'") for text in _QUOTED.findall(expression)]
        lengths = sorted({int(n) for n in _WHOLE.findall(_QUOTED.sub("''", expression)) if 0 < int(n) <= 300})
        prefixes = (_unlike(one or other, "\0").partition("\0")[0] for one, other in _LIKE.findall(expression))
        starts = list(dict.fromkeys(["", *prefixes, *(c for c in constants if 0 < len(c) <= 12 and "%" not in c)]))[:6]
        for start in starts:
            found += [start + word, word + start] if start else []
            found += [of_length(start + word, n + more) for n in lengths[:4] for more in (0, 1, -1)]
            found += [of_length(start, n, alphabet, number) for n in lengths[:4] for alphabet in _ALPHABETS[:3]]
    return tuple(dict.fromkeys(text for text in found if text and text.isprintable()))


def wanted_bytes(expressions: Iterable[str], number: int) -> tuple[str, ...]:
    """Byte strings of the lengths that are named, in hexadecimal."""
    lengths = {int(n) for e in expressions for n in _WHOLE.findall(_QUOTED.sub("''", e)) if int(n) <= 300}
    near = sorted({n + more for n in lengths for more in (-1, 0, 1) if n + more >= 0})
    return tuple("\\x" + of_length("", 2 * n, _ALPHABETS[1], number) for n in near)


def from_patterns(expression: str, number: int = 0) -> tuple[str, ...]:
    """Strings that match the regular expressions in ``expression``, others for another ``number``; nothing for a dialect
    that nobody here can read."""
    patterns = [*_REGEX.findall(expression), *_FUNCTION.findall(expression)]
    patterns += [_similar(text) for text in _SIMILAR.findall(expression)]
    return tuple(dict.fromkeys(v for found in patterns for v in _matching(found.replace("''", "'"), number)))


def like_values(expression: str, word: str, number: int) -> tuple[str, ...]:
    """Strings that match the LIKE patterns in ``expression``: ``org\\_%`` gives ``org_`` and the word."""
    found = []
    for pattern in (one or other for one, other in _LIKE.findall(expression)):
        text = pattern.replace("''", "'")
        filled = (
            _unlike(text, filler) for filler in (word, f"{word}-{word}", of_length("", 26, _ALPHABETS[1], number))
        )
        found += [one for one in filled if one]
    return tuple(dict.fromkeys(found))


def mutations(sample: str, number: int) -> Iterator[str]:
    """``sample`` with its digits or letters replaced, in their own kind, by the digits of ``number``."""
    for digits, letters in ((True, False), (True, True), (False, True)):
        changed, rest = [], number
        for character in reversed(sample):
            pool = _pool(character, digits, letters)
            if pool:
                changed.append(pool[rest % len(pool)])
                rest //= len(pool)
            else:
                changed.append(character)
        text = "".join(reversed(changed))
        if text != sample:
            yield text


def _pool(character: str, digits: bool, letters: bool) -> str:
    if digits and character.isdigit() and character.isascii():
        return "0123456789"
    if letters and character.isalpha() and character.isascii():
        # The letters that hexadecimal and base 32 alphabets have in common.
        return "abcdef" if character.islower() else "ABCDEF"
    return ""


def of_length(start: str, length: int, alphabet: str = "", number: int = 0) -> str:
    """``start`` cut or filled to ``length``; with an alphabet, filled with ``number`` in its digits."""
    if not alphabet:
        return (start + "x" * max(0, length - len(start)))[: max(length, 0)]
    filler = ""
    while len(start) + len(filler) < length:
        filler = alphabet[number % len(alphabet)] + filler
        number //= len(alphabet)
    return (start + filler)[: max(length, 0)]


def _unlike(pattern: str, word: str) -> str:
    out, escaped, filled = [], False, False
    for character in pattern:
        if escaped or character not in "%_\\":
            out.append(character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "_":
            out.append("1")
        else:
            out.append("" if filled else word)
            filled = True
    return "".join(out)


def _similar(pattern: str) -> str:
    """SIMILAR TO as a regular expression."""
    return "^(" + pattern.replace("%", ".*").replace("_", ".") + ")$"


def _as_python(pattern: str) -> str:
    """Character classes such as ``[:alpha:]`` written out, and embedded options dropped; Python does not know them."""
    plain = pattern.replace(r"\m", r"\b").replace(r"\M", r"\b").replace(r"\y", r"\b")
    return _POSIX_CLASS.sub(lambda found: _POSIX.get(found[1], found[0]), plain)


def _matching(pattern: str, number: int) -> tuple[str, ...]:
    plain = re.sub(r"^\(\?[a-z]+\)", "", pattern.removeprefix("***:"))
    try:
        made = regular.matches(plain, number, _MADE)
        # What was made of the pattern is checked with Python's reader where that can read it.
        reader = re.compile(_as_python(plain))
        good = tuple(text for text in made if reader.search(text))
    except regular.Unreadable:
        good = ()
    except (re.error, OverflowError):
        return made
    if good:
        return good
    matches = _matches(pattern)
    return (*(changed for match in matches[:6] for changed in mutations(match, number)), *matches)


@cache
@at_home()
def _matches(pattern: str) -> tuple[str, ...]:
    """Some printable matches, of different lengths, always the same ones."""
    import hypothesis  # noqa: PLC0415
    from hypothesis import strategies as st  # noqa: PLC0415
    from hypothesis.errors import HypothesisException  # noqa: PLC0415

    found: list[str] = []

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.generate,),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.from_regex(_as_python(pattern)))
    def collect(text: str) -> None:
        # Python lets $ stand before a final newline, PostgreSQL does not.
        if text.isprintable() and text not in found:
            found.append(text)

    try:
        with warnings.catch_warnings():
            # What Python may read otherwise one day, it reads wrongly now.
            warnings.simplefilter("error", FutureWarning)
            collect()
    except (HypothesisException, re.error, FutureWarning, RecursionError, OverflowError):
        return ()
    plain = [text for text in found if text.isascii()] or found
    return tuple(plain[:_KEPT])
