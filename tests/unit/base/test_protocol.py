from __future__ import annotations

from typing import get_args

import mcp_types
import pytest
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import version as sdk

from mcp_proxy.base import protocol


def test_the_revisions_are_those_of_the_sdk() -> None:
    assert tuple(sdk.HANDSHAKE_PROTOCOL_VERSIONS) == protocol.LEGACY_VERSIONS
    assert tuple(sdk.MODERN_PROTOCOL_VERSIONS) == protocol.MODERN_VERSIONS
    assert sorted(protocol.LEGACY_VERSIONS) == list(protocol.LEGACY_VERSIONS)
    assert max(protocol.LEGACY_VERSIONS) == protocol.LATEST_LEGACY
    assert max(protocol.MODERN_VERSIONS) == protocol.LATEST_MODERN


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("META_VERSION", "PROTOCOL_VERSION_META_KEY"),
        ("META_CLIENT_INFO", "CLIENT_INFO_META_KEY"),
        ("META_CLIENT_CAPABILITIES", "CLIENT_CAPABILITIES_META_KEY"),
        ("META_SERVER_INFO", "SERVER_INFO_META_KEY"),
        ("META_LOG_LEVEL", "LOG_LEVEL_META_KEY"),
        ("PARSE_ERROR", "PARSE_ERROR"),
        ("INVALID_REQUEST", "INVALID_REQUEST"),
        ("METHOD_NOT_FOUND", "METHOD_NOT_FOUND"),
        ("INVALID_PARAMS", "INVALID_PARAMS"),
        ("INTERNAL_ERROR", "INTERNAL_ERROR"),
        ("HEADER_MISMATCH", "HEADER_MISMATCH"),
        ("MISSING_CLIENT_CAPABILITY", "MISSING_REQUIRED_CLIENT_CAPABILITY"),
        ("UNSUPPORTED_VERSION", "UNSUPPORTED_PROTOCOL_VERSION"),
    ],
)
def test_keys_and_codes_are_those_of_the_sdk(ours: str, theirs: str) -> None:
    assert getattr(protocol, ours) == getattr(mcp_types, theirs)


def test_the_key_of_a_subscription_is_that_of_the_sdk() -> None:
    assert protocol.META_SUBSCRIPTION_ID == SUBSCRIPTION_ID_META_KEY


def test_the_log_levels_are_those_of_the_sdk_in_the_same_order() -> None:
    assert get_args(mcp_types.LoggingLevel) == protocol.LOG_LEVELS
