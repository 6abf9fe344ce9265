"""What may not be read in a log: secrets masked, long texts cut, invisible characters made visible.

Pure functions over plain data; they never raise. Where lines are written is `logs`. ``harmless`` lets the usual line,
in which there is nothing to do, pass after a few searches in its encoded bytes.
"""

from __future__ import annotations

import re
from typing import Any

from mcp_proxy.base.json import JsonError, Raw, decode

LIMIT = 2048
"""Characters of one text that are kept."""
MASK = "***"
MAX_NODES = 4096
"""Values of one logged object that are looked at; what lies behind them is left out."""
MAX_DEPTH = 64
_LONGEST_INTEGER = 4 * LIMIT
"""Bits. More than a line that `harmless` looks at can hold; Python refuses to print the longest."""

_KEY = re.compile(r"authorization|cookie|token|secret|passw(?:or)?d|api[-_]?key|private[-_]?key|credential", re.I)
# Counts of tokens are no secret: max_tokens, usage.prompt_tokens, completion_tokens_details.
_COUNT = re.compile(r"tokens", re.I)

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A JWT whole or cut off: `eyJ` is how every JSON object begins in base64.
    (re.compile(r"eyJ[\w-]*\.[\w.-]*|eyJ[\w-]{8,}", re.A), MASK),
    (re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{8,}", re.I), MASK),
    (
        re.compile(
            r"\b(bearer\s+)(?!token(?:[\s,.;:]|$)|(?:realm|error|scope)=)[A-Za-z0-9._~+/=-]+",
            re.I,
        ),
        rf"\1{MASK}",
    ),
    # In URLs and forms (token=…), and in JSON that is itself a text ("token": "…", its quotes escaped or not).
    (
        re.compile(
            r"((?:token|secret|passw(?:or)?d|api[-_]?key|authorization)(?:=|\\*[\"']\s*:\s*)\\*[\"']?)"
            r"[^\s&\"'\\#,;<>)\]}]+",
            re.I,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(://)[^\s/@:?#]*:[^\s/@]*@"), rf"\1{MASK}@"),
)

# Controls that JSON leaves as they are (DEL, C1), line separators, marks and overrides of writing direction, and
# halves of surrogate pairs, which UTF-8 cannot carry.
_INVISIBLE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# Words that every text worth masking has one of. Those in the second row have a letter that is rare in log lines, so
# that one pass over the bytes rules all of them out; whatever is not printable ASCII counts among the rare.
_TRIGGERS = (b"cre", b"bearer", b"authorization")  # `cre`: secret, credential
_ALL_TRIGGERS = (*_TRIGGERS, b"token", b"key", b"cookie", b"sk-", b"passw", b"eyj", b"@", b"\x7f")
_COMMON = bytes(set(range(0x7F)) - set(b"jkwJKW@"))


def harmless(line: bytes) -> bool:
    """Whether a line of JSON certainly holds nothing that `redact` would change.

    Only for objects of plain scalars: what is encoded on the way (bytes as base64) cannot be seen here.
    """
    if len(line) > LIMIT:
        return False
    lower = line.lower()
    rare = line.translate(None, _COMMON)
    for trigger in _ALL_TRIGGERS if rare else _TRIGGERS:
        if trigger in lower:
            return False
    return not rare or rare.isascii()


def redact_text(text: str, limit: int = LIMIT, *, tail: bool = False) -> str:
    """Mask secrets in a text, cut it to ``limit`` characters (``tail``: keep the end) and escape what is invisible."""
    cut = len(text) - limit
    # What is masked may shrink or vanish at the cut, so the masking sees more than is kept; but not megabytes.
    text = (text[-4 * limit :] if tail else text[: 4 * limit]) if cut > 0 else text
    for pattern, mask in _PATTERNS:
        text = pattern.sub(mask, text)
    if cut > 0:
        text = f"({cut} characters left out)…{text[-limit:]}" if tail else f"{text[:limit]}…({cut} characters left out)"
    return _INVISIBLE.sub(_escape, text)


def redact(value: Any) -> Any:
    """A copy of ``value`` in plain JSON types, fit to be logged. Never raises; ``value`` is not changed."""
    return _Walk().clean(value, 0)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _counts(key: str, value: Any) -> bool:
    return _COUNT.search(key) is not None and isinstance(value, (int, float, dict))


class _Walk:
    """One walk over one value. The budget of nodes also ends cycles."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_NODES

    def clean(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, str):
            return redact_text(str.__str__(value))
        if isinstance(value, int):
            return (
                int(value) if value.bit_length() <= _LONGEST_INTEGER else f"(an integer of {value.bit_length()} bits)"
            )
        if depth >= MAX_DEPTH or self._left <= 0:
            return "…"
        if isinstance(value, dict):
            return self._dict(value, depth + 1)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._list(value, depth + 1)
        return self._other(value, depth)

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        for key, item in list(value.items()):
            if self._left <= 0:
                cleaned["…"] = f"{len(value)} entries"
                break
            name = self.clean(key, MAX_DEPTH)
            name = name if isinstance(name, str) else str(name)
            hidden = item is not None and _KEY.search(name) is not None and not _counts(name, item)
            cleaned[name] = MASK if hidden else self.clean(item, depth)
        return cleaned

    def _list(self, value: list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any], depth: int) -> list[Any]:
        cleaned: list[Any] = []
        for item in list(value):
            if self._left <= 0:
                cleaned.append(f"… {len(value)} items")
                break
            cleaned.append(self.clean(item, depth))
        return cleaned

    def _other(self, value: Any, depth: int) -> Any:
        if isinstance(value, Raw):
            try:
                return self.clean(decode(value), depth + 1)
            except JsonError:
                value = bytes(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return redact_text(bytes(value[: 4 * LIMIT]).decode("utf-8", "backslashreplace"))
        try:
            return redact_text(repr(value))
        except Exception:  # noqa: BLE001 - a stranger's __repr__ may raise anything, and a log line must not
            return f"(an unprintable {type(value).__name__})"
