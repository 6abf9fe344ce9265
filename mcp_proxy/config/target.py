"""What an entry says about reaching its server: the transport, the command that starts it, the URL that is called.

What these words and URLs may be is `address`; the rest of an entry is `entry`.
"""

from __future__ import annotations

from mcp_proxy.config.address import looks_like_url, transport_of, transport_word, url_fault
from mcp_proxy.config.fields import Fields, Note, Refused, is_number
from mcp_proxy.config.model import Grade, Transport

TRANSPORT_KEYS = ("type", "transport", "transportType", "protocol")
URL_KEYS = ("url", "serverUrl", "httpUrl")


def read_target(fields: Fields) -> tuple[Transport, str | None, tuple[str, ...], str | None]:
    """Transport, command, arguments, URL."""
    fields.drop_empty("command", *URL_KEYS)
    word = _word(fields)
    command, args = _command(fields)
    streamable = "httpUrl" in fields.left
    field = next((key for key in URL_KEYS if key in fields.left), "command")
    url = fields.text(*URL_KEYS)
    if command is not None and url is not None:
        raise Refused("has both command and url; a server is either started or called")
    if command is not None and looks_like_url(command):
        if word is None or word is Transport.STDIO:
            raise Refused("command is a URL; put it under url, or say type sse or http")
        command, url = None, command
        if "command" in fields.written:
            fields.written["url"] = fields.written.pop("command")
    if url is None:
        return _started(word, command), command, args, None
    if fault := url_fault(url):
        raise Refused(f"{field} {fault}")
    if args:
        fields.note("args", Grade.UNSUPPORTED, "means nothing for a server that is reached by URL; not used")
    return _called(word, url, streamable, fields.note), None, (), url


def _started(word: Transport | None, command: str | None) -> Transport:
    if command is None:
        raise Refused("has neither command nor url")
    if not command:
        raise Refused("command is empty")
    if word not in (None, Transport.STDIO):
        raise Refused(f"the transport is {word}, which needs a url, but only a command is there")
    return Transport.STDIO


def _called(word: Transport | None, url: str, streamable: bool, note: Note) -> Transport:
    if word is Transport.STDIO:
        raise Refused("the transport is stdio, which needs a command, but only a url is there")
    if streamable and word not in (None, Transport.STREAMABLE_HTTP):
        raise Refused(f"httpUrl means streamable-http, but the transport is {word}")
    if word is not None:
        return word
    if streamable:
        return Transport.STREAMABLE_HTTP
    transport = transport_of(url)
    if transport is Transport.AUTO:
        note("transport", Grade.APPROXIMATE, "no transport is named: streamable HTTP is tried, then SSE")
    return transport


def _word(fields: Fields) -> Transport | None:
    """The transport that was named, under whichever keys."""
    named: dict[str, Transport] = {}
    for key in TRANSPORT_KEYS:
        found = fields.take(key)
        if found is None:
            continue
        transport = transport_word(found[1]) if isinstance(found[1], str) else None
        if transport is None:
            raise Refused(f"{key} is not a known transport; accepted: stdio, sse, streamable-http")
        named[key] = transport
    if len(set(named.values())) > 1:
        raise Refused(f"{' and '.join(named)} name different transports")
    return next(iter(named.values()), None)


def _command(fields: Fields) -> tuple[str | None, tuple[str, ...]]:
    """The program and its arguments; some clients write both into one list."""
    found = fields.take("command")
    if found is None:
        return None, _args(fields)
    if not isinstance(found[1], list):
        return fields.expanded(*found), _args(fields)
    if not found[1]:
        raise Refused("command is empty")
    program = fields.expanded("command", found[1][0])
    inline = [fields.scalar(f"args[{i}]", value) for i, value in enumerate(found[1][1:])]
    return program, (*inline, *_args(fields, len(inline)))


def _args(fields: Fields, first: int = 0) -> tuple[str, ...]:
    found = fields.take("args")
    if found is None:
        return ()
    if not isinstance(found[1], list) or not all(isinstance(v, str) or is_number(v) for v in found[1]):
        raise Refused("args must be a list of texts")
    return tuple(fields.scalar(f"args[{i}]", value) for i, value in enumerate(found[1], first))
