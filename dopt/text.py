"""What users and files say, as a terminal may show it: in one line, of bounded length, without characters that steer it."""

from __future__ import annotations

import unicodedata

LONGEST = 200  # characters of a value in a message
STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, marks of direction, half characters, separators of lines


def shown(text: str) -> str:
    """The text with escapes in the place of what steers a terminal or ends a line."""
    return "".join(_escape(c) if unicodedata.category(c) in STEERING else c for c in text)


def lines(text: str) -> str:
    """As `shown`, but line ends stay."""
    return "\n".join(map(shown, text.split("\n")))


def quoted(value: object) -> str:
    """A value as Python writes it, cut where it is long."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * LONGEST:
        return f"a whole number of about {int(value.bit_length() * 0.30103)} digits"
    text = repr(value[:LONGEST]) if isinstance(value, str | bytes) else _repr(value)
    return shown(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")


def _repr(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, or too deep a list, somewhere in it
        return f"a {type(value).__name__}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
