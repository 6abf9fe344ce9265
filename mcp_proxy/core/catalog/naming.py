"""How tools are called at the doors: bare, or with the namespace in front. Pure.

A namespace is a group, or a server outside any group. Finding a tool by name is `snapshot`.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

_MISFIT = re.compile(r"[^A-Za-z0-9_-]")
STRICT_LENGTH = 64
"""What clients accept that allow only ``[A-Za-z0-9_-]{1,64}``; applied with the strict separator."""


@dataclass(frozen=True, slots=True)
class NamingPolicy:
    """Decided once at the start and kept, so that nothing is renamed under connected clients.

    ``prefixed`` is None for "only on conflict" (``on-conflict``, ``never``): the first namespace keeps the bare name.
    """

    separator: str
    prefixed: bool | None
    first_keeps: bool = False


def decide(naming: str, separator: str, namespaces: int) -> NamingPolicy:
    """The policy for a setting (``auto | always | on-conflict | never``) and the number of namespaces at the start."""
    if naming == "always" or (naming == "auto" and namespaces != 1):
        return NamingPolicy(separator, True)
    if naming == "on-conflict":
        return NamingPolicy(separator, None)
    return NamingPolicy(separator, None, first_keeps=True)


def shown_names(policy: NamingPolicy, tools: Sequence[tuple[str, str]]) -> list[str]:
    """The name at the doors of each (namespace, bare name), in order; all different."""
    counts = Counter(bare for _, bare in tools)
    taken: set[str] = set()
    names = []
    for namespace, bare in tools:
        clash = counts[bare] > 1 and (not policy.first_keeps or bare in taken)
        name = f"{namespace}{policy.separator}{bare}" if policy.prefixed or clash else bare
        names.append(_fit(name, policy, taken))
        taken.add(names[-1])
    return names


def _fit(name: str, policy: NamingPolicy, taken: set[str]) -> str:
    """Fit strict clients under the strict separator, and give way to a name that is taken, the same way every time."""
    strict = policy.separator == "__"
    fits = not strict or (len(name) <= STRICT_LENGTH and _MISFIT.search(name) is None)
    if fits and name not in taken:
        return name
    stem = (_MISFIT.sub("_", name) if strict else name)[: STRICT_LENGTH - 9]
    for salt in itertools.count():
        tail = sha256(f"{name}{salt or ''}".encode()).hexdigest()[:8]
        if (fitted := f"{stem}_{tail}") not in taken:
            return fitted
    raise AssertionError  # the count has no end
