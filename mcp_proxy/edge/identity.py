"""What the token of a request says of its caller, and how many requests a minute the caller may make.

Whether a caller may do what it asks is decided where it is asked; a caller without a token is passed on as None.
Finding tokens is `tokens`, reading them `core.auth.verifier`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from mcp_proxy.base.errors import ProxyError
from mcp_proxy.core.auth.principal import LOCAL, PRINCIPAL_KEY, Principal
from mcp_proxy.core.auth.resource import WELL_KNOWN
from mcp_proxy.edge.respond import refuse
from mcp_proxy.edge.tokens import take_token
from mcp_proxy.edge.types import App, Receive, Scope, Send
from mcp_proxy.telemetry.record import SCOPE_KEY

_HEALTH = frozenset({"/health", "/health/live", "/health/ready"})
_OPEN = frozenset({"/"}) | _HEALTH
"""Paths for everybody: a token that is not accepted counts as none, so that no probe fails of an old one.

So is everything below `WELL_KNOWN`, which clients read when their token is not accepted.
"""


class Verifier(Protocol):
    """What a token says."""

    def known(self, token: str) -> Principal | None:
        """That of a token that was accepted a moment ago and still is; None: it has to be asked for."""

    async def authenticate(self, token: str) -> Principal:
        """Raises `ProxyError` (unauthorized) for one that is not accepted, without repeating it."""


class Rates(Protocol):
    """How many requests are accepted. Raises `ProxyError` (rate_limited)."""

    async def take(self, principal: Principal | None, address: str | None) -> None: ...


class Identity:
    """Puts the `Principal`, or None, under ``PRINCIPAL_KEY``; refuses tokens that are not accepted, on any path.

    With ``no_auth`` everyone is ``LOCAL``, and tokens are dropped unread. Without ``rates`` nobody is counted.
    """

    def __init__(self, app: App, verifier: Verifier, *, no_auth: bool, rates: Rates | None = None) -> None:
        self._app = app
        self._verifier = verifier
        self._no_auth = no_auth
        self._rates = rates

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        token = take_token(scope)
        principal: Principal | None = None
        if self._no_auth:
            token, principal = None, LOCAL
        elif isinstance(token, str):
            principal = self._verifier.known(token)
        if self._rates is None and (token is None or principal is not None):  # there is nothing to wait for
            scope[PRINCIPAL_KEY] = principal
            if principal is not None:
                scope[SCOPE_KEY].principal = principal.subject
            return self._app(scope, receive, send)
        return self._judge(scope, receive, send, token, principal)

    async def _judge(
        self, scope: Scope, receive: Receive, send: Send, token: str | ProxyError | None, principal: Principal | None
    ) -> None:
        try:
            if isinstance(token, ProxyError):
                raise token
            if token is not None and principal is None:
                principal = await self._verifier.authenticate(token)
        except ProxyError as error:
            if error.status != 401 or not (scope["path"] in _OPEN or scope["path"].startswith(WELL_KNOWN)):
                limited = await self._over(scope, None)
                return await refuse(scope, send, limited or error, token_given=limited is None)
        scope[PRINCIPAL_KEY] = principal
        if principal is not None:
            scope[SCOPE_KEY].principal = principal.subject
        if (limited := await self._over(scope, principal)) is not None:
            return await refuse(scope, send, limited)
        return await self._app(scope, receive, send)

    async def _over(self, scope: Scope, principal: Principal | None) -> ProxyError | None:
        """The error for a caller that sends too much. Probes of the service's health are not counted."""
        if self._rates is None or scope["path"] in _HEALTH:
            return None
        client = scope.get("client")
        try:
            await self._rates.take(principal, client[0] if client else None)
        except ProxyError as error:
            return error
        return None
