"""Tokens over REST: revoking one. Making them is the command line's business."""

from __future__ import annotations

import asyncio

from mcp_proxy.api.messages import ApiReply, ApiRequest, only_fields, reply, string_field
from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import INTERNAL_ERROR, UNPROCESSABLE, ProxyError
from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.auth.revocation import RevocationError, Revocations, is_token_id


class Tokens:
    """Handlers of ``/api/tokens``."""

    def __init__(self, revocations: Revocations, clock: Clock) -> None:
        self._revocations = revocations
        self._clock = clock

    async def revoke(self, request: ApiRequest) -> ApiReply:
        """``POST /api/tokens/revoke`` ``{"jti"}``: in force at once, kept in the state directory."""
        request.caller(Scope.ADMIN)
        body = request.json_object()
        only_fields(body, ("jti",))
        token_id = string_field(body, "jti", required=True)
        if token_id is None or not is_token_id(token_id):
            raise ProxyError(UNPROCESSABLE, "jti must be 1 to 256 printable characters", details={"field": "jti"})
        try:
            await asyncio.to_thread(self._revocations.revoke, token_id, self._clock.time())
        except RevocationError:
            raise ProxyError(INTERNAL_ERROR, "the revocation could not be written to the state directory") from None
        return reply({"revoked": token_id})
