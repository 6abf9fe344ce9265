"""``python -m mcp_proxy.scripts.generate_token``: another name of ``mcp-proxy-api token``."""

from __future__ import annotations

from mcp_proxy.cli.token import token


def main() -> None:
    """Run the command; ends the process."""
    token(prog_name="generate_token")


if __name__ == "__main__":
    main()
