"""What makes a shared secret good enough, and how a new one is made.

Used for ``JWT_SECRET`` and for the secrets of static tokens. Reading settings is `keys` and `static`.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from itertools import pairwise

MAKE_ONE = "openssl rand -base64 48"
"""The command that every message about a bad secret tells: 64 characters on one line, enough for every HS algorithm."""

# Words of examples and templates, compared without case and punctuation. All are long enough never to turn up by
# chance in random text.
_EXAMPLES = (
    "yoursecret", "yourjwtsecret", "yoursupersecret", "yourownsecret", "mysecret", "supersecret", "topsecret",
    "secretkeyhere", "secrethere", "thisisasecret", "thisisnotasecret", "changeme", "changethis", "changeit",
    "replaceme", "replacethis", "replacewith", "placeholder", "putyour", "insertyour", "generatea", "insecure",
    "notsecure", "donotuse", "dontuse", "password", "example", "256bitsecret", "384bitsecret", "512bitsecret",
    "atleast256bits", "atleast32", "default", "qwertyuiop",
)  # fmt: skip
_TEMPLATE = re.compile(r"(\$\{.*\}|\$\(.*\)|<.*>|\{\{.*\}\}|__.*__|%.*%)", re.DOTALL)
_PUNCTUATION = re.compile(r"[^a-z0-9]")


def random_secret() -> str:
    """A secret strong enough for every HS algorithm (64 random bytes)."""
    return secrets.token_urlsafe(64)


def weakness(secret: str) -> str | None:
    """Why ``secret`` is guessable whatever its length, or None. The answer never repeats any of it."""
    word = _PUNCTUATION.sub("", secret.lower())
    if _TEMPLATE.fullmatch(secret.strip()) or any(example in word for example in _EXAMPLES):
        return "is a placeholder"
    if len(set(secret)) < 6:
        return "is made of too few different characters"
    if _period(secret) * 2 <= len(secret):
        return "repeats itself"
    if _is_sequence(secret):
        return "is a plain sequence"
    return None


def _period(text: str) -> int:
    """Length of the shortest unit that, repeated (the last time perhaps in part), gives ``text``."""
    return next((shift for shift in range(1, len(text)) if text.startswith(text[shift:])), len(text))


def _is_sequence(text: str) -> bool:
    """Whether most neighbours are the same step apart, as in ``abcdefgh`` or ``0123456789``."""
    steps = Counter(ord(right) - ord(left) for left, right in pairwise(text))
    return bool(steps) and steps.most_common(1)[0][1] * 4 >= 3 * (len(text) - 1)
