"""The upstreams of all servers: begun together, and changed one by one while the others go on as if nothing happened.

What is configured is decided elsewhere (`registry`); what they offer together is `mcp_client_manager`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.upstream.upstream import Upstream

_SOFT = (
    "group", "replica_set", "timeout", "tools", "retry", "description", "extra", "written", "source", "provider",
)  # fmt: skip
"""What can change without the connection noticing."""
_AT_ONCE, _BREATH = 8, 0.005
"""How many connections are begun in one step at the start, and seconds between two steps."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What an `apply` did, by name. ``changed`` go on with their connection, ``replaced`` get a new one."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.replaced)


class Fleet:
    """All upstreams by the names of their servers, in the order of the configuration."""

    def __init__(
        self,
        specs: Iterable[ServerSpec],
        *,
        make: Callable[[ServerSpec], Upstream],
        tasks: TaskSet,
        drain: float,
        tied: Callable[[ServerSpec], bool] = lambda _: False,
    ) -> None:
        """``drain``: seconds that calls in flight get when their server is removed or replaced.

        ``tied``: what else a connection depends on; where it changes with what is configured, there is a new one.
        """
        self._tied = tied
        self._make = make
        self._tasks = tasks
        self._drain = drain
        self._upstreams = {spec.name: make(spec) for spec in specs}
        self._actors: dict[Upstream, asyncio.Task[None]] = {}
        self._started = False

    def __len__(self) -> int:
        return len(self._upstreams)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(tuple(self._upstreams.values()))

    def __getitem__(self, name: str) -> Upstream:
        return self._upstreams[name]

    def __contains__(self, name: object) -> bool:
        return name in self._upstreams

    @property
    def specs(self) -> Mapping[str, ServerSpec]:
        """The servers as they are configured now."""
        return {name: upstream.spec for name, upstream in self._upstreams.items()}

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._started = True
        self._tasks.spawn(self._begin_all(), "begin upstreams")

    async def _begin_all(self) -> None:
        """All within a moment, but not in one step: whoever asks for something meanwhile is answered."""
        for position, upstream in enumerate(self):
            if position % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(_BREATH)
            if self._upstreams.get(upstream.spec.name) is upstream and upstream not in self._actors:
                self._begin(upstream)

    def apply(self, specs: Iterable[ServerSpec]) -> Changes:
        """Make the servers these, at once; what takes time goes on behind it. Untouched ones notice nothing.

        Calls in flight at servers that go, or get a new connection, are given time to end; new ones wait for it.
        """
        wanted = {spec.name: spec for spec in specs}
        before = self._upstreams
        removed = [name for name in before if name not in wanted]
        added, changed, replaced = [], [], []
        after: dict[str, Upstream] = {}
        for name, spec in wanted.items():
            old = before.get(name)
            if old is None:
                added.append(name)
                after[name] = self._make(spec)
            elif old.spec == spec:
                after[name] = old
            elif _same_connection(old.spec, spec) and self._tied(old.spec) == self._tied(spec):
                changed.append(name)
                old.spec = spec
                after[name] = old
            else:
                replaced.append(name)
                after[name] = self._make(spec)
                if not spec.disabled:
                    after[name].take_over(old)
        self._upstreams = after
        for name in (*added, *replaced):
            self._begin(after[name])
        for name in (*removed, *replaced):
            self._retire(before[name])
        return Changes(tuple(added), tuple(removed), tuple(changed), tuple(replaced))

    def _begin(self, upstream: Upstream) -> None:
        if self._started and not upstream.spec.disabled:
            self._actors[upstream] = self._tasks.spawn(upstream.run(), f"upstream {upstream.spec.name}")

    def _retire(self, upstream: Upstream) -> None:
        actor = self._actors.pop(upstream, None)
        if actor is not None:
            self._tasks.spawn(self._end(upstream, actor), f"retire upstream {upstream.spec.name}")

    async def _end(self, upstream: Upstream, actor: asyncio.Task[None]) -> None:
        try:
            await upstream.bulkhead.wait_empty(self._drain)
        finally:
            if not actor.cancelling():  # a second time would cut short the orderly end of its child
                actor.cancel()
            await asyncio.wait([actor])


def _same_connection(one: ServerSpec, other: ServerSpec) -> bool:
    """Whether nothing differs that the connection depends on."""
    return replace(one, **{name: getattr(other, name) for name in _SOFT}) == other
