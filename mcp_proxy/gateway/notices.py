"""Telling clients of changes: ``list_changed`` when what they can see changes, ``resources/updated`` to who follows.

Every kind of client is an audience: sessions with a stream, and ``subscriptions/listen`` of modern clients.
Sources: basic/patterns/subscriptions (2026-07-28), server/tools and its siblings (2025-11-25).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mcp_proxy.base.json import Fields, JsonError, decode, decode_fields
from mcp_proxy.base.protocol import META_SUBSCRIPTION_ID
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.view import Listing, view
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.gateway.envelope import RequestId
from mcp_proxy.gateway.following import Following
from mcp_proxy.gateway.outlet import Channel
from mcp_proxy.gateway.wording import notification

DELAY = 0.1
"""Seconds after a change in which further ones are collected."""
PERSONAL_DELAY = 0.4
"""The same after a server has told one client: what it tells everybody is known only when its lists have been read."""
PAUSE = 1.0
"""Seconds between two rounds of notices."""
LISTINGS: tuple[Listing, ...] = ("tools", "prompts", "resources")
Kind = Literal["tools", "prompts", "resources"]


@dataclass(frozen=True)
class Audience:
    """Somebody who is told of changes. ``kinds``: of which lists; ``subscription``: the id of the request that asked for it."""

    principal: Principal
    client: Client
    namespace: str | None
    channel: Channel
    kinds: frozenset[str]
    subscription: RequestId | None = None

    @property
    def sight(self) -> tuple[object, ...]:
        """Equal for audiences that see the same."""
        who = self.principal
        return (self.client.profile, who.servers, who.tools, self.namespace)

    def sees(self, spec: ServerSpec) -> bool:
        """Whether it can see anything of that server."""
        inside = self.namespace in (None, spec.name, spec.group)
        return inside and self.principal.sees_server(spec.name, spec.group)

    def tell(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification, marked with the subscription it belongs to, and with no other: an upstream's is ours alone."""
        given = params or {}
        meta = {key: value for key, value in _meta_of(given).items() if key != META_SUBSCRIPTION_ID}
        if self.subscription is not None:
            meta[META_SUBSCRIPTION_ID] = self.subscription
        own = {key: value for key, value in given.items() if key != "_meta"} | ({"_meta": meta} if meta else {})
        self.channel.send(notification(method, own or None))


class Notices:
    """All audiences. Hears of changes as the manager's `Listener`."""

    def __init__(self, manager: McpClientManager, following: Following, tasks: TaskSet) -> None:
        self._manager = manager
        self._following = following
        self._tasks = tasks
        self._audiences: dict[object, Audience] = {}
        self._told: dict[tuple[object, ...], dict[Listing, str]] = {}
        self._sights: Counter[tuple[object, ...]] = Counter()
        """How many audiences see the same: what nobody sees any more is forgotten at once, since clients have a say in it."""
        self._announced: list[tuple[ServerSpec, frozenset[str]]] = []
        self._personal: dict[object, set[str]] = defaultdict(set)
        self._round: asyncio.Task[None] | None = None
        self._again = False

    def __len__(self) -> int:
        return len(self._audiences)

    def add(self, owner: object, audience: Audience) -> None:
        """Tell ``owner`` of what changes from now on."""
        before = self._audiences.get(owner)
        self._audiences[owner] = audience
        self._sights[audience.sight] += 1
        if audience.kinds and audience.sight not in self._told:
            self._told[audience.sight] = self._digests(audience)
        if before is not None:
            self._lost(before)

    def remove(self, owner: object) -> None:
        """``owner`` is not told any more."""
        audience = self._audiences.pop(owner, None)
        self._personal.pop(owner, None)
        if audience is not None:
            self._lost(audience)

    def _lost(self, audience: Audience) -> None:
        sight = audience.sight
        self._sights[sight] -= 1
        if not self._sights[sight]:
            del self._sights[sight]
            self._told.pop(sight, None)

    # `core.events.Listener`, but for what belongs to single clients

    def catalog_changed(self) -> None:
        """See `Listener.catalog_changed`."""
        self._soon()

    def announced(self, spec: ServerSpec, kinds: frozenset[str]) -> None:
        """See `Listener.announced`."""
        self._announced.append((spec, kinds))
        self._soon()

    def told(self, owner: object, kind: str) -> None:
        """A server said that one list changed on a link of ``owner``'s own: what it shows to clients like that one."""
        if owner in self._audiences:
            self._personal[owner].add(kind)
            self._soon()

    def resource_updated(self, spec: ServerSpec, message: Incoming) -> None:
        """See `Listener.resource_updated`."""
        params = _params(message)
        try:
            uri = decode(params["uri"]) if "uri" in params else None
        except JsonError:
            return
        if not isinstance(uri, str):
            return
        for owner in self._following.followers(spec.name, uri):
            audience = self._audiences.get(owner)
            if audience is not None and audience.principal.sees_tool(uri, spec.name, spec.group):
                audience.tell(message.method, params)

    def _soon(self) -> None:
        if self._round is not None:
            self._again = True
        elif self._audiences:
            self._round = self._tasks.spawn(self._rounds(), "notices")
        else:
            self._announced.clear()
            self._told.clear()

    async def _rounds(self) -> None:
        """Tell everybody, and again as long as there is something new."""
        try:
            while True:
                self._again = False
                await asyncio.sleep(PERSONAL_DELAY if self._personal else DELAY)
                await self._tell()
                await asyncio.sleep(PAUSE)
                if not self._again:
                    return
        finally:
            self._round = None

    async def _tell(self) -> None:
        announced, self._announced = self._announced, []
        personal, self._personal = self._personal, defaultdict(set)
        changed = await self._compare(list(self._audiences.values()))
        for owner, audience in list(self._audiences.items()):
            said = {kind for spec, kinds in announced if audience.sees(spec) for kind in kinds}
            said |= personal.get(owner, set())
            for kind in LISTINGS:
                if kind in audience.kinds and (kind in said or kind in changed.get(audience.sight, ())):
                    audience.tell(f"notifications/{kind}/list_changed")

    async def _compare(self, audiences: Iterable[Audience]) -> dict[tuple[object, ...], set[Listing]]:
        """What has changed for each kind of audience since they were told last."""
        changed: dict[tuple[object, ...], set[Listing]] = {}
        for audience in audiences:
            if audience.sight in changed:
                continue
            now = self._digests(audience)
            old = self._told.get(audience.sight, now)
            if audience.sight in self._sights:
                self._told[audience.sight] = now
            changed[audience.sight] = {kind for kind in LISTINGS if now[kind] != old[kind]}
            await asyncio.sleep(0)  # each takes a while where there is much to list
        return changed

    def _digests(self, audience: Audience) -> dict[Listing, str]:
        seen = view(self._manager.catalog_for(audience.client), audience.principal, audience.namespace)
        return {kind: seen.digest(kind) for kind in LISTINGS}


def _meta_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """``_meta`` of a notification, opened; {} for what is no object."""
    meta = params.get("_meta", {})
    if isinstance(meta, Mapping):
        return dict(meta)
    try:
        return dict(decode_fields(meta))
    except JsonError:
        return {}


def _params(message: Incoming) -> Fields:
    if message.params is None:
        return {}
    try:
        return decode_fields(message.params)
    except JsonError:
        return {}
