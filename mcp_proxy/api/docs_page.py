"""``GET /docs``: a page that shows ``/openapi.json`` and tries its operations. It is plain files in ``console/``."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from urllib.parse import urlsplit

from mcp_proxy.api.messages import ApiReply, ApiRequest
from mcp_proxy.base.errors import NOT_FOUND, ProxyError
from mcp_proxy.settings import Settings

POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: its own two files, and requests to this service."""

_PAGE = "docs.html"
_PARTS = {"app.js": ("docs.js", b"text/javascript"), "style.css": ("docs.css", b"text/css")}


class DocsPage:
    """Handlers of the page and of its files."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        directory = files("mcp_proxy") / "console"
        self._page = (directory / _PAGE).read_text("utf-8")
        self._parts = {name: ((directory / file).read_bytes(), kind) for name, (file, kind) in _PARTS.items()}

    async def page(self, request: ApiRequest) -> ApiReply:
        """``GET /docs``: for everybody; holds no data."""
        base = urlsplit(self._settings.public_url or request.base_url).path.rstrip("/")
        body = self._page.replace("{base}", escape(base)).encode()
        return ApiReply(
            200, body, ((b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", POLICY))
        )

    async def part(self, request: ApiRequest) -> ApiReply:
        """``GET /docs/{file}``. Raises `ProxyError` (404)."""
        found = self._parts.get(request.params["file"])
        if found is None:
            raise ProxyError(NOT_FOUND, "the page has no file of that name")
        body, kind = found
        return ApiReply(200, body, ((b"content-type", kind + b"; charset=utf-8"), (b"cache-control", b"no-cache")))
