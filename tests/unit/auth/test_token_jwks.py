"""Key sets: which members count, where they come from, when they are fetched again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager

import pytest

from mcp_proxy.base.errors import ProxyError, StartError
from mcp_proxy.core.auth import jwks as module
from mcp_proxy.core.auth.jwks import JwksError, JwksKeys, fetch_https, parse_jwks
from mcp_proxy.core.auth.keys import load_keys
from mcp_proxy.core.auth.revocation import Revocations
from mcp_proxy.core.auth.verifier import TokenVerifier

pytestmark = pytest.mark.anyio
URL = "https://idp.example/jwks"


def document(*keys):
    return json.dumps({"keys": list(keys)}).encode()


class Source:
    """Answers fetches with ``answer``: bytes, or the reason of a failure."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = 0

    async def __call__(self, address):
        assert address == URL
        self.calls += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, str):
            raise JwksError(self.answer)
        return self.answer


@pytest.fixture
def following(settings_from, clock, tmp_path):
    """A verifier with the keys of a source."""

    def build(source, algorithm="RS256"):
        settings = settings_from(JWT_ALGORITHM=algorithm, MCP_PROXY_JWKS=URL)
        keys = load_keys(settings, clock, source)
        return keys, TokenVerifier(settings, keys, clock, Revocations(tmp_path))

    return build


def test_only_members_that_fit_the_pinned_algorithm_are_kept(rsa_pair, ec_pair, ed_pair):
    data = document(
        rsa_pair.jwk("RS256", kid="good"),
        rsa_pair.jwk("RS256", kid="same", alg="RS256", use="sig", key_ops=["verify"]),
        rsa_pair.jwk("RS256", kid="other-alg", alg="RS512"),
        rsa_pair.jwk("RS256", kid="encryption", use="enc"),
        rsa_pair.jwk("RS256", kid="wrapping", key_ops=["wrapKey"]),
        {**rsa_pair.jwk("RS256", kid="disguised"), "kty": "oct", "k": "AAAA"},
        ec_pair.jwk("ES256", kid="curve"),
        ed_pair.jwk("EdDSA", kid="edwards"),
        {"kty": "oct", "kid": "secret", "k": "AAAA"},
        {"kty": "oct", "kid": "broken"},
        {"kty": "RSA", "kid": "empty"},
        {"kty": "RSA", "kid": "odd", "n": 5, "e": []},
        {"kid": "no type"},
        "not an object",
    )
    assert set(parse_jwks(data, "RS256")) == {"good", "same"}
    assert set(parse_jwks(data, "ES256")) == {"curve", None}
    assert set(parse_jwks(data, "EdDSA")) == {"edwards", None}
    assert set(parse_jwks(data, "PS256")) == {"good", None}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"<html>", "not JSON"),
        (b'{"keys": [], "keys": []}', "not JSON"),
        (b"[]", "keys"),
        (b'{"keys": {}}', "keys"),
        (b'{"keys": []}', "no usable key for RS256"),
        (b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', "no usable key for RS256"),
        (b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB"}]}', "private key"),
        (b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}', "no usable key"),
    ],
)
def test_a_set_without_a_usable_public_key_is_refused(data, word):
    with pytest.raises(JwksError, match=word):
        parse_jwks(data, "RS256")


def test_a_curve_other_than_the_algorithms_does_not_fit(ec_pair):
    with pytest.raises(JwksError):
        parse_jwks(document(ec_pair.jwk("ES256", kid="a")), "ES384")


def test_a_file_is_read_at_the_start_and_must_be_good(settings_from, clock, rsa_pair, tmp_path):
    file = tmp_path / "jwks.json"
    settings = settings_from(JWT_ALGORITHM="RS256", MCP_PROXY_JWKS=str(file))
    for content, word in ((None, "cannot be read"), (b"{}", "keys"), (b" " * (2**20 + 1), "1 MiB")):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(StartError, match=word):
            load_keys(settings, clock)
    file.write_bytes(document(rsa_pair.jwk("RS256", kid="a")))
    keys = load_keys(settings, clock)
    assert keys.find("a") is not None
    assert keys.find("b") is None


async def test_a_file_that_changed_is_read_again_for_an_unknown_key(
    settings_from, clock, sign, rsa_pair, other_rsa_pair, tmp_path
):
    file = tmp_path / "jwks.json"
    file.write_bytes(document(rsa_pair.jwk("RS256", kid="old")))
    settings = settings_from(JWT_ALGORITHM="RS256", MCP_PROXY_JWKS=str(file))
    verifier = TokenVerifier(settings, load_keys(settings, clock), clock, Revocations(tmp_path))
    file.write_bytes(document(other_rsa_pair.jwk("RS256", kid="new")))
    token = sign(other_rsa_pair.private, "RS256", {"kid": "new"}, sub="a")
    assert (await verifier.authenticate(token)).subject == "a"


@pytest.mark.parametrize("url", ["http://idp.example/jwks", "ftp://x/y", "https://", "file:///etc/x", "http://[::1"])
def test_only_https_or_loopback_is_fetched_from(settings_from, clock, url):
    with pytest.raises(StartError, match="MCP_PROXY_JWKS"):
        load_keys(settings_from(JWT_ALGORITHM="RS256", MCP_PROXY_JWKS=url), clock)


@pytest.mark.parametrize(
    "url", ["https://idp.example/x", "http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]/x"]
)
def test_https_and_loopback_are_accepted(settings_from, clock, url):
    assert load_keys(settings_from(JWT_ALGORITHM="RS256", MCP_PROXY_JWKS=url), clock) is not None


async def test_the_key_is_chosen_by_its_id(following, sign, rsa_pair, other_rsa_pair):
    keys, verifier = following(Source(document(rsa_pair.jwk("RS256", kid="a"), other_rsa_pair.jwk("RS256", kid="b"))))
    assert await keys.refresh()
    assert verifier.verify(sign(rsa_pair.private, "RS256", {"kid": "a"}, sub="1")).subject == "1"
    assert verifier.verify(sign(other_rsa_pair.private, "RS256", {"kid": "b"}, sub="2")).subject == "2"
    with pytest.raises(ProxyError, match="signature"):
        verifier.verify(sign(other_rsa_pair.private, "RS256", {"kid": "a"}))


async def test_a_token_without_key_id_needs_a_set_with_one_key(following, sign, rsa_pair, other_rsa_pair):
    source = Source(document(rsa_pair.jwk("RS256", kid="a")))
    keys, verifier = following(source)
    await keys.refresh()
    token = sign(rsa_pair.private, "RS256", sub="a")
    assert verifier.verify(token).subject == "a"
    source.answer = document(rsa_pair.jwk("RS256", kid="a"), other_rsa_pair.jwk("RS256", kid="b"))
    keys, verifier = following(source)
    await keys.refresh()
    with pytest.raises(ProxyError, match="several"):
        verifier.verify(token)


async def test_an_unknown_key_causes_one_fetch_and_a_second_look(following, sign, rsa_pair):
    source = Source(document(rsa_pair.jwk("RS256", kid="a")))
    _, verifier = following(source)
    token = sign(rsa_pair.private, "RS256", {"kid": "a"}, sub="a")
    with pytest.raises(ProxyError, match="not known"):
        verifier.verify(token)
    assert (await verifier.authenticate(token)).subject == "a"
    await verifier.authenticate(token)
    assert source.calls == 1


async def test_unknown_keys_cause_at_most_one_fetch_in_thirty_seconds(following, clock, sign, rsa_pair):
    source = Source(document(rsa_pair.jwk("RS256", kid="a")))
    _, verifier = following(source)

    async def attempt(number):
        with pytest.raises(ProxyError, match="not known"):
            await verifier.authenticate(sign(rsa_pair.private, "RS256", {"kid": f"x{number}"}))

    await asyncio.gather(*(attempt(number) for number in range(10)))
    assert source.calls == 1
    clock.move(29.9)
    await attempt(0)
    assert source.calls == 1
    clock.move(0.1)
    await attempt(0)
    assert source.calls == 2


async def test_a_bad_signature_causes_no_fetch(following, sign, rsa_pair, other_rsa_pair, clock):
    source = Source(document(rsa_pair.jwk("RS256", kid="a")))
    keys, verifier = following(source)
    await keys.refresh()
    clock.move(60)
    with pytest.raises(ProxyError, match="signature"):
        await verifier.authenticate(sign(other_rsa_pair.private, "RS256", {"kid": "a"}))
    assert source.calls == 1


@pytest.mark.parametrize("header", [{"alg": "HS256"}, {"alg": "none"}, {"alg": "RS256", "crit": ["x"], "x": 1}])
async def test_a_token_that_no_key_could_make_good_causes_no_fetch(following, by_hand, rsa_pair, header):
    source = Source(document(rsa_pair.jwk("RS256", kid="a")))
    _, verifier = following(source)
    with pytest.raises(ProxyError):
        await verifier.authenticate(by_hand({**header, "kid": "unknown"}, {"exp": 1_900_000_000}))
    assert source.calls == 0


async def test_the_last_good_set_outlives_a_failing_source(following, clock, sign, rsa_pair):
    source = Source(document(rsa_pair.jwk("RS256", kid="a")))
    keys, verifier = following(source)
    assert await keys.refresh()
    for answer in ("answered 500", b"not json", b'{"keys": []}'):
        source.answer = answer
        clock.move(61)
        assert not await keys.refresh()
        assert keys.problem
        assert URL not in keys.problem
        verifier.verify(sign(rsa_pair.private, "RS256", {"kid": "a"}))
    source.answer = document(rsa_pair.jwk("RS256", kid="a"))
    clock.move(61)
    assert await keys.refresh()
    assert keys.problem is None


async def test_a_key_taken_from_the_set_stops_counting_within_a_minute(
    following, clock, sign, rsa_pair, other_rsa_pair
):
    source = Source(document(rsa_pair.jwk("RS256", kid="a")))
    keys, verifier = following(source)
    await keys.refresh()
    token = sign(rsa_pair.private, "RS256", {"kid": "a"})
    verifier.verify(token)
    source.answer = document(other_rsa_pair.jwk("RS256", kid="b"))
    clock.move(60)
    await keys.refresh()
    with pytest.raises(ProxyError, match="not known"):
        verifier.verify(token)


async def test_watching_refreshes_every_five_minutes_and_after_a_failure_every_thirty_seconds(clock, rsa_pair):
    source = Source(document(rsa_pair.jwk("RS256", kid="a")))
    keys = JwksKeys.from_url(URL, "RS256", clock, source)
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        clock.move(seconds)
        source.answer = "answered 500" if len(pauses) == 1 else document(rsa_pair.jwk("RS256", kid="a"))
        if len(pauses) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keys.watch(sleep)
    assert pauses == [300, 30, 300]
    assert source.calls == 3


# The real fetch, over loopback


@asynccontextmanager
async def answering(*parts):
    """A server that answers every request with these bytes; yields its URL."""

    handlers = []

    async def serve(reader, writer):
        handlers.append(asyncio.current_task())
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
            if not parts:
                await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
        await asyncio.wait_for(asyncio.gather(*handlers), 5)


async def test_the_document_is_fetched():
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as url:
        assert await fetch_https(url) == b"{}"


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", "302 .redirects"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "cannot be reached"),
        (b"nonsense\r\n\r\n", "cannot be reached"),
    ],
)
async def test_other_answers_are_failures(head, word):
    async with answering(head) as url:
        with pytest.raises(JwksError, match=word):
            await fetch_https(url)


async def test_a_document_beyond_one_mebibyte_is_not_read_to_its_end():
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", b" " * (2**20 + 1)) as url:
        with pytest.raises(JwksError, match="1 MiB"):
            await fetch_https(url)


async def test_a_silent_source_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "FETCH_TIMEOUT", 0.05)
    async with answering() as url:
        with pytest.raises(JwksError, match="cannot be reached"):
            await fetch_https(url)


async def test_a_closed_port_is_a_failure():
    async with answering() as url:
        pass
    with pytest.raises(JwksError, match="cannot be reached"):
        await fetch_https(url)
