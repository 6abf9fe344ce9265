from __future__ import annotations

import pytest

from mcp_proxy.base.errors import COMMAND_NOT_ALLOWED, UNPROCESSABLE, URL_NOT_ALLOWED, Kind, ProxyError
from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.admission import Admission
from mcp_proxy.core.admission.commands import CommandTemplates
from mcp_proxy.core.admission.guard import AddressGuard
from tests.unit.core.admission.hosts import Hosts

pytestmark = pytest.mark.anyio

HOSTS = Hosts(**{"inside.example": ("10.0.0.5",), "tools.example": ("8.8.8.8",)})
ADMISSION = Admission(AddressGuard((), HOSTS), CommandTemplates(["uvx good"]))


async def test_what_is_allowed_becomes_a_server() -> None:
    for entry in ({"url": "https://tools.example/mcp"}, {"command": "uvx", "args": ["good"]}):
        spec = ADMISSION.check_entry("mod", entry)
        assert (spec.name, spec.source) == ("mod", "the API")
        await ADMISSION.check(spec)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (ServerSpec("a", Transport.SSE, "test", url="http://inside.example/sse"), URL_NOT_ALLOWED),
        (ServerSpec("a", Transport.STDIO, "test", command="uvx", args=("bad",)), COMMAND_NOT_ALLOWED),
        (ServerSpec("a", Transport.STDIO, "test", command="uvx", args=("good",), env={"PATH": "/"}), UNPROCESSABLE),
    ],
    ids=lambda value: value.type if isinstance(value, Kind) else "",
)
async def test_a_server_however_it_was_read_is_held_to_addresses_and_commands(spec: ServerSpec, kind: Kind) -> None:
    with pytest.raises(ProxyError) as raised:
        await ADMISSION.check(spec)
    assert raised.value.kind is kind


async def test_an_entry_is_judged_without_looking_anything_up() -> None:
    hosts = Hosts()
    Admission(AddressGuard((), hosts), CommandTemplates()).check_entry("mod", {"url": "http://inside.example/mcp"})
    assert hosts.asked == []
