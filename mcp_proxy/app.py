"""`create_app`: the one place where the house is put together."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from quart import Quart

from mcp_proxy.api.description import Description
from mcp_proxy.api.docs_page import DocsPage
from mcp_proxy.api.instances import Instances
from mcp_proxy.api.messages import BODY_TIMEOUT, ApiHandler, ApiReply, ApiRequest
from mcp_proxy.api.resources import Resources
from mcp_proxy.api.status import Status
from mcp_proxy.api.tokens import Tokens
from mcp_proxy.api.tools import Tools
from mcp_proxy.api.web import Routes
from mcp_proxy.base.clock import SystemClock
from mcp_proxy.base.errors import ProxyError
from mcp_proxy.base.json import encode
from mcp_proxy.config.model import Servers
from mcp_proxy.core.auth.principal import PRINCIPAL_KEY
from mcp_proxy.core.auth.resource import WELL_KNOWN
from mcp_proxy.edge.addresses import refuse_open_doors
from mcp_proxy.edge.body import read_body_in_time
from mcp_proxy.edge.doors import serves
from mcp_proxy.edge.mount import Mount
from mcp_proxy.edge.presence import while_connected
from mcp_proxy.edge.respond import error_headers, send_error, send_json
from mcp_proxy.edge.stack import build_edge
from mcp_proxy.edge.types import HEADERS_KEY, App, Receive, Scope, Send
from mcp_proxy.llm.off import LlmOff
from mcp_proxy.runtime import Runtime
from mcp_proxy.settings import Settings, load_settings
from mcp_proxy.telemetry.logs import Logger, configure
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord


class ProxyApp(Quart):
    """The web application, with what it runs on."""

    runtime: Runtime


def create_app(
    settings: Settings | None = None,
    servers: Servers | None = None,
    log: Logger | None = None,
    environ: Mapping[str, str] | None = None,
) -> ProxyApp:
    """Build the service: settings from the environment and servers from the settings, unless they are given.

    Files with servers are followed, unless the servers are given; ``environ`` fills the variables in them.

    Raises `StartError` with one line for the operator. Connects to nothing; that begins with the server's lifespan.
    """
    if settings is None:
        loaded = load_settings()
        settings, environ = loaded.settings, loaded.environ
    refuse_open_doors(settings.host, no_auth=settings.no_auth)
    log = log or configure(settings, clock=SystemClock())
    runtime = Runtime(settings, servers, log=log, environ=os.environ if environ is None else environ)
    app = ProxyApp("mcp_proxy", static_folder=None, template_folder=None)
    app.runtime = runtime
    # The edge bounds bodies; calls have their own deadlines, and Quart's would cut streams.
    # What a handler raises unexpectedly reaches the edge, which logs and answers it as it does for every door.
    app.config.update(
        MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=BODY_TIMEOUT, RESPONSE_TIMEOUT=None, PROPAGATE_EXCEPTIONS=True
    )
    app.before_serving(runtime.start)
    app.after_serving(runtime.stop)
    tools = _add_routes(app, runtime)
    llm = runtime.llm.door if runtime.llm is not None else LlmOff()
    inner = Mount(
        cast("App", app.asgi_app),
        {
            ("POST", "/tools"): _direct(tools.call, settings.max_body),
            ("WS", "/ws"): runtime.ws,
            ("GET", "/ws"): runtime.ws,
        },
        {"/mcp": runtime.mcp, "/hook": runtime.mcp, "/sse": runtime.sse, "/messages": runtime.sse, "/v1": llm},
    )
    edge = build_edge(
        inner,
        settings=settings,
        verifier=runtime.verifier,
        log=log,
        clock=runtime.clock,
        ids=runtime.ids,
        admin_port=lambda: runtime.admin_port,
        telling={"v1": llm.tell},
    )
    app.asgi_app = edge  # type: ignore[method-assign, assignment]
    return app


def _add_routes(app: Quart, runtime: Runtime) -> Tools:
    routes = Routes(app, _render)
    tools = Tools(runtime.calls, runtime.manager, log_bodies=runtime.settings.log_bodies)
    status = Status(runtime.manager, runtime.registry, runtime.gate, runtime.doors)
    instances = Instances(runtime.registry, runtime.manager, runtime.settings)
    tokens = Tokens(runtime.revocations, runtime.clock)
    resources = Resources(runtime.settings)
    described: list[tuple[str, str]] = []
    description = Description(runtime.manager, runtime.settings, described)
    docs = DocsPage(runtime.settings)
    table: tuple[tuple[str, str, ApiHandler], ...] = (
        ("GET", "/", status.index),
        ("GET", "/health", status.health),
        ("GET", "/health/live", status.live),
        ("GET", "/health/ready", status.ready),
        ("GET", "/servers", status.servers),
        ("GET", "/tools", tools.list_shown),
        ("GET", "/tools/list", tools.list),
        ("POST", "/tools", tools.call),
        ("POST", "/tools/<server>/<path:tool>", tools.call_named),
        ("POST", "/servers", instances.add_servers),
        ("DELETE", "/servers/<name>", instances.remove_server),
        ("GET", "/api/instances", instances.list),
        ("POST", "/api/instances", instances.add),
        ("GET", "/api/instances/<name>", instances.get),
        ("PATCH", "/api/instances/<name>", instances.patch),
        ("DELETE", "/api/instances/<name>", instances.remove_server),
        ("POST", "/api/instances/<name>/enable", instances.enable),
        ("POST", "/api/instances/<name>/disable", instances.disable),
        ("GET", "/api/instances/<name>/pins", instances.pins),
        ("POST", "/api/instances/<name>/pins/approve", instances.approve),
        ("GET", "/api/tools", tools.by_server),
        ("GET", "/api/tools/<server>", tools.of_server),
        ("POST", "/api/call", tools.call_instance),
        ("GET", "/api/config", instances.config),
        ("POST", "/api/tokens/revoke", tokens.revoke),
        ("GET", WELL_KNOWN, resources.describe),
        ("GET", f"{WELL_KNOWN}/<path:path>", resources.describe),
        ("GET", "/openapi.json", description.openapi),
        ("GET", "/docs", docs.page),
        ("GET", "/docs/<file>", docs.part),
    )
    for method, rule, handler in table:
        routes.add(method, rule, handler)
    described += [route for route in routes.served if _is_described(route, runtime.settings)]
    return tools


def _is_described(route: tuple[str, str], settings: Settings) -> bool:
    """Whether a route is served where the description of all routes is."""
    admin = None if settings.admin_port is None else False
    return serves(*route, doors=settings.doors, admin=admin)


def _render(error: ProxyError, request_id: str) -> ApiReply:
    return ApiReply(error.status, encode(error.body(request_id)), tuple(error_headers(error)))


def _direct(handler: ApiHandler, limit: int) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """A REST handler as plain ASGI, for the mount."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestRecord = scope[SCOPE_KEY]
        # Outside the try: a body over the limit is answered by the edge, which then closes the connection.
        body = await read_body_in_time(receive, limit)
        try:
            kind = scope[HEADERS_KEY].get(b"content-type", b"")
            request = ApiRequest(record, scope[PRINCIPAL_KEY], body, kind.decode("latin-1"))
            answer = await while_connected(receive, handler(request))
        except ProxyError as error:
            record.error = error.kind.type
            await send_error(send, error, record.request_id)
            return
        await send_json(send, answer.status, answer.body, answer.headers)

    return respond
