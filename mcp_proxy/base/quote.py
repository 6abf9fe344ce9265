"""Somebody's text inside a message for people: in quotes, on one line, and otherwise as it was written.

For settings, the command line and configuration, where ``repr`` would double the backslashes of a path and spell out
letters beyond ASCII. What an answer to a caller repeats is the business of the door.
"""

from __future__ import annotations


def quote(text: str, longest: int = 80) -> str:
    """``text`` in quotes, cut to ``longest`` characters; those that cannot be printed are written as escapes.

    The quotes are single, or double around a text that holds a single quote and no double one.
    """
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:longest])
    mark = '"' if "'" in shown and '"' not in shown else "'"
    return f"{mark}{shown}{mark}"
