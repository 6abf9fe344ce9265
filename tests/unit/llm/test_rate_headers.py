from __future__ import annotations

import pytest

from mcp_proxy.llm.rate_headers import Standing, duration, moment, rate_headers

NOON = 1_772_366_400.0
REQUESTS = Standing(30, 29, 59.2)
TOKENS = Standing(5000, 0, 6.0)


@pytest.mark.parametrize("api", ["openai", "openai-responses"])
def test_openai_clients_are_told_as_openai_does(api: str) -> None:
    assert dict(rate_headers(api, REQUESTS, TOKENS, NOON)) == {
        b"x-ratelimit-limit-requests": b"30",
        b"x-ratelimit-remaining-requests": b"29",
        b"x-ratelimit-reset-requests": b"1m0s",
        b"x-ratelimit-limit-tokens": b"5000",
        b"x-ratelimit-remaining-tokens": b"0",
        b"x-ratelimit-reset-tokens": b"6s",
    }


def test_anthropic_clients_are_told_as_anthropic_does() -> None:
    assert dict(rate_headers("anthropic", REQUESTS, TOKENS, NOON)) == {
        b"anthropic-ratelimit-requests-limit": b"30",
        b"anthropic-ratelimit-requests-remaining": b"29",
        b"anthropic-ratelimit-requests-reset": b"2026-03-01T12:01:00Z",
        b"anthropic-ratelimit-tokens-limit": b"5000",
        b"anthropic-ratelimit-tokens-remaining": b"0",
        b"anthropic-ratelimit-tokens-reset": b"2026-03-01T12:00:06Z",
    }


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_nothing_is_said_of_what_is_not_limited(api: str) -> None:
    assert rate_headers(api, None, None, NOON) == []
    assert len(rate_headers(api, None, TOKENS, NOON)) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.01, "1s"), (59, "59s"), (59.5, "1m0s"), (60, "1m0s"), (360, "6m0s"), (61, "1m1s")],
)
def test_durations_are_minutes_and_seconds_rounded_up(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_moments_are_rounded_up_to_a_second() -> None:
    assert moment(0.1) == "1970-01-01T00:00:01Z"
