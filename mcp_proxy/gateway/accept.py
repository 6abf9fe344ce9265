"""What kinds of answer a client takes, read from its ``Accept`` header (RFC 9110 §12.5.1). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Accepts:
    """``events`` only when event streams, or all text, are named: who takes anything (``*/*``) is given JSON."""

    json: bool
    events: bool


@lru_cache(maxsize=256)
def accepted(value: bytes) -> Accepts:
    """From the header's value; that of several is joined with commas. No header, or an empty one, takes anything."""
    ranges: dict[str, bool] = {}
    for piece in value.decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in piece.split(";"))
        if name:
            ranges[name] = all(_weight(parameter) > 0 for parameter in parameters)
    if not ranges:
        ranges["*/*"] = True
    return Accepts(
        json=_first(ranges, "application/json", "application/*", "*/*"),
        events=_first(ranges, "text/event-stream", "text/*"),
    )


def _first(ranges: dict[str, bool], *names: str) -> bool:
    """What the most specific range that is there says."""
    return next((ranges[name] for name in names if name in ranges), False)


def _weight(parameter: str) -> float:
    """The value of ``q=…``; 1 for other parameters, and for what is no number."""
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 1.0
