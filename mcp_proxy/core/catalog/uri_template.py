"""URI templates (RFC 6570) read backwards: a regular expression for the URIs that a template can expand to. Pure.

The expressions use no look-around and no back-references, so that an engine in linear time can run them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRIPLET = r"%[0-9A-Fa-f]{2}"
_VARIABLE = re.compile(
    rf"(?P<name>(?:\w|{_TRIPLET})(?:\.?(?:\w|{_TRIPLET}))*)(?P<modifier>\*|:(?P<length>[1-9][0-9]{{0,3}}))?", re.ASCII
)
_NAME_PART = re.compile(rf"{_TRIPLET}|[\w.]", re.ASCII)
_PART = re.compile(rf"\{{(?P<expression>[^{{}}]*)\}}|(?P<literal>{_TRIPLET}|[^{{}}])", re.DOTALL)
_NO_LITERAL = re.compile(r"[\x00-\x20\x7f\"%<>\\^`|\ud800-\udfff]")
"""RFC 6570, 2.1, with erratum 6937 (the apostrophe is a literal)."""

_PLAIN = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~-]*")
"""Literals that stand in a URI in one way only."""
_UNRESERVED = r"A-Za-z0-9._~\x2D"
_RESERVED = _UNRESERVED + r":/?#\[\]@!$&'()*+,;="
_CHARACTER = rf"%[89A-Fa-f][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f]){{0,3}}|{_TRIPLET}"
"""A character outside ASCII is two to four triplets, and counts once (RFC 6570, 2.4.1)."""
_LONGEST = 4096
"""Characters of a template; a longer one is taken for invalid."""
_COUNTED = 16
"""Variables of one expression that are counted; of more, any number is taken."""


@dataclass(frozen=True, slots=True)
class _Operator:
    """A row of the table in RFC 6570, appendix A. ``named``: values come as ``name=value``."""

    first: str
    separator: str
    named: bool = False
    reserved: bool = False


_OPERATORS = {
    "": _Operator("", ","),
    "+": _Operator("", ",", reserved=True),
    "#": _Operator("#", ",", reserved=True),
    ".": _Operator(".", "."),
    "/": _Operator("/", "/"),
    ";": _Operator(";", ";", named=True),
    "?": _Operator("?", "&", named=True),
    "&": _Operator("&", "&", named=True),
}


def pattern_of(template: str, *, prefixes: bool = True) -> str | None:
    """An anchored regular expression for the expansions of ``template``, or None if it is not valid.

    ``{x}`` and ``{+x}`` stand for at least one character; an expression with another operator may be absent (all its
    variables undefined), and its values empty. Named parameters (``{?x,y}``) are taken in any order.
    ``prefixes``: keep to the lengths of ``{x:3}``, which can make the expression very large.
    """
    if len(template) > _LONGEST:
        return None
    parts: list[str] = []
    end = 0
    for match in _PART.finditer(template):
        literal = match["literal"]
        part = _expression(match["expression"], prefixes) if literal is None else _literal(literal)
        if part is None or match.start() != end:  # something between the matches: a brace without its other half
            return None
        parts.append(part)
        end = match.end()
    return f"^{''.join(parts)}$" if end == len(template) else None


def beginning_of(template: str) -> str:
    """What every expansion begins with; perhaps nothing."""
    match = _PLAIN.match(template)
    return match[0] if match else ""


def _literal(text: str) -> str | None:
    """One character as itself or, outside ASCII, also percent-encoded; or one triplet."""
    if len(text) == 3:
        return _triplet(text)
    if _NO_LITERAL.match(text):
        return None
    if text.isascii():
        return f"\\x{ord(text):02X}"
    return f"(?:{text}|{''.join(_triplet(f'%{octet:02X}') for octet in text.encode())})"


def _triplet(text: str) -> str:
    """A percent-encoded octet; the case of its digits does not count (RFC 3986, 2.1)."""
    return "%" + "".join(f"[{digit.upper()}{digit.lower()}]" for digit in text[1:])


def _expression(text: str, prefixes: bool) -> str | None:
    operator = _OPERATORS.get(text[:1])
    names = text[1:] if operator else text
    operator = operator or _OPERATORS[""]
    variables = [_VARIABLE.fullmatch(name) for name in names.split(",")]
    found = [variable for variable in variables if variable is not None]
    if len(found) != len(variables):
        return None
    one = f"(?:{'|'.join(dict.fromkeys(_piece(operator, variable, prefixes) for variable in found))})"
    first, separator = (f"\\x{ord(char):02X}" if char else "" for char in (operator.first, operator.separator))
    # Repeated parameters do no harm; counting them would make the expression as large as the square of their number.
    many = operator.named or any(variable["modifier"] == "*" for variable in found) or len(found) > _COUNTED
    listed = f"{first}{one}(?:{separator}{one}){'*' if many else f'{{0,{len(found) - 1}}}'}"
    return f"(?:{listed})?" if operator.first else listed


def _piece(operator: _Operator, variable: re.Match[str], prefixes: bool) -> str:
    """What one variable, or one member of an exploded one, expands to."""
    exploded = variable["modifier"] == "*"
    length = int(variable["length"] or 0) if prefixes else 0
    some, maybe = (_value(operator, exploded, length, least) for least in (1, 0))
    if not operator.named:
        return maybe if operator.first else some
    name = (
        rf"(?:[{_UNRESERVED}]|{_TRIPLET})+"
        if exploded
        else "".join(map(_name_part, _NAME_PART.findall(variable["name"])))
    )
    return f"{name}(?:={some})?" if operator.first == ";" else f"{name}={maybe}"


def _value(operator: _Operator, exploded: bool, length: int, least: int) -> str:
    chars = _RESERVED if operator.reserved else _UNRESERVED
    if operator.first and not operator.reserved:
        chars += ","  # between the members of a list
    if exploded and not operator.reserved:
        chars += ",="  # keys and values of an exploded mapping
    if length:
        return f"(?:[{chars}]|{_CHARACTER}){{{least},{length}}}"
    return f"(?:[{chars}]|{_TRIPLET}){'+' if least else '*'}"


def _name_part(text: str) -> str:
    return _triplet(text) if len(text) == 3 else re.escape(text)
