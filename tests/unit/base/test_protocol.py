from __future__ import annotations

import mcp_types
import pytest
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
