"""Words for transports, and URLs that a server may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.config.address import looks_like_url, transport_of, transport_word, url_fault
from mcp_proxy.config.model import Transport


@pytest.mark.parametrize(
    ("word", "transport"),
    [
        *((word, Transport.STREAMABLE_HTTP) for word in ("http", "streamable-http", "streamableHttp", "remote")),
        *((word, Transport.STREAMABLE_HTTP) for word in ("STREAMABLE_HTTP", "streamable_http", "STREAMABLEHTTP")),
        *((word, Transport.STDIO) for word in ("stdio", "STDIO", "local", "std")),
        *((word, Transport.SSE) for word in ("sse", "SSE")),
        *((word, None) for word in ("", "websocket", "https", "ws", "http streamable")),
    ],
)
def test_the_words_of_all_clients_come_to_three(word: str, transport: Transport | None) -> None:
    assert transport_word(word) is transport


@pytest.mark.parametrize(
    "url",
    ["http://h", "https://h/mcp", "http://10.0.0.5:8999/sse", "http://[::1]:80/x?a=b", "HTTP://H/", "http://bücher.de"],
)
def test_an_ordinary_url_has_no_fault(url: str) -> None:
    assert url_fault(url) is None


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("https://user:s3cret@h/mcp", "user name or password"),
        ("https://s3cret@h/mcp", "user name or password"),
        ("https://good.example\\@s3cret.example/", "user name or password"),
        ("ftp://s3cret/", "must begin with"),
        ("unix:///s3cret.sock", "must begin with"),
        ("s3cret", "must begin with"),
        ("http://", "no host"),
        ("http:///s3cret", "no host"),
        ("http://s3cret\\x/", "no host"),
        ("http://{s3cret}/", "no host"),
        ("http://h:99999/s3cret", "cannot be read"),
        ("http://h:s3cret/", "cannot be read"),
        ("http://[::1/s3cret", "cannot be read"),
        ("http://h:0/s3cret", "no port"),
        ("http://h/s3cret\r\nX: y", "control character"),
        ("http://h/a s3cret", "space"),
        ("", "must begin with"),
    ],
)
def test_a_fault_is_told_without_repeating_the_url(url: str, part: str) -> None:
    fault = url_fault(url)
    assert fault is not None
    assert part in fault
    assert "s3cret" not in fault


@given(st.text() | st.text(alphabet="htps:/@[]?#.\\ 0aé\n").map("http://".__add__))
def test_no_text_raises(url: str) -> None:
    if url_fault(url) is None:
        assert looks_like_url(url)
        assert transport_of(url) in (Transport.SSE, Transport.AUTO)


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("http://h/sse", Transport.SSE),
        ("http://h/a/sse/", Transport.SSE),
        ("http://h/sse?x=1", Transport.SSE),
        ("http://h/mcp", Transport.AUTO),
        ("http://h/mcp?x=/sse", Transport.AUTO),
        ("http://h/assess", Transport.AUTO),
        ("http://h/sse/mcp", Transport.AUTO),
    ],
)
def test_the_path_alone_says_sse(url: str, transport: Transport) -> None:
    assert transport_of(url) is transport
