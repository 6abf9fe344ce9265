"""How tools and prompts are called at the doors: bare, or with the namespace in front. Pure.

A namespace is a group, or a server outside any group. Finding a tool by name is `names`.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Named:
    """A name at the doors. ``wanted`` is what it would be if the one at index ``gave_way_to`` were not called so."""

    name: str
    wanted: str
    gave_way_to: int | None = None


def shown_names(policy: NamingPolicy, tools: Sequence[tuple[str, str]]) -> list[str]:
    """The name at the doors of each (namespace, bare name), in order; all different."""
    return [one.name for one in name_all(policy, tools)]


def name_all(policy: NamingPolicy, tools: Sequence[tuple[str, str]]) -> list[Named]:
    """As `shown_names`, with what had to give way."""
    counts = Counter(bare for _, bare in tools)
    taken: dict[str, int] = {}
    names = []
    for index, (namespace, bare) in enumerate(tools):
        clash = counts[bare] > 1 and (not policy.first_keeps or bare in taken)
        wanted = f"{namespace}{policy.separator}{bare}" if policy.prefixed or clash else bare
        names.append(_fit(wanted, policy, taken))
        taken[names[-1].name] = index
    return names


def _fit(name: str, policy: NamingPolicy, taken: Mapping[str, int]) -> Named:
    """Fit strict clients under the strict separator, and give way to a name that is taken, the same way every time."""
    strict = policy.separator == "__"
    fits = not strict or (len(name) <= STRICT_LENGTH and _MISFIT.search(name) is None)
    if fits and name not in taken:
        return Named(name, name)
    stem = (_MISFIT.sub("_", name) if strict else name)[: STRICT_LENGTH - 9]
    for salt in itertools.count():
        tail = sha256(f"{name}{salt or ''}".encode()).hexdigest()[:8]
        if (fitted := f"{stem}_{tail}") not in taken:
            return Named(fitted, name, taken.get(name))
    raise AssertionError  # the count has no end
