"""Where the program listens: sockets of our own making, so that an address in use is our one-line error, both ports are
known before anything is served, and no child inherits a listening socket; and the certificate.

Who accepts the connections is `uvicorn_server`.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Collection, Sequence
from pathlib import Path

from mcp_proxy.base.errors import StartError

BACKLOG = 2048

_FURTHER_PORTS = 100
"""That are tried with --auto-port after the one asked for."""
_LAST_PORT = 65_535
_CIPHERS = "ECDHE+AESGCM"
"""With TLS 1.2; those of TLS 1.3 are all good."""


class Listeners:
    """The sockets that are listened on, and what TLS needs."""

    def __init__(self, host: str, certfile: Path | None = None, keyfile: Path | None = None) -> None:
        self.host = host
        self.certfile = certfile
        self.keyfile = keyfile
        self.sockets: list[socket.socket] = []

    def listen(self, ports: Sequence[int], choosing: str) -> int:
        """Listen on the first of the ports that is free, beside those listened on before, and return it.

        0 lets the system choose. Raises `StartError`, which says how a port is chosen.
        """
        shown = f"[{self.host}]" if ":" in self.host else self.host
        for port in ports:
            try:
                self.sockets.append(sock := _listening(self.host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                where = f"{shown}:{port}"
                if error.errno == errno.EACCES:
                    raise StartError(f"{where} is not permitted; choose a port above 1023") from None
                raise StartError(f"cannot listen on {where}: {error.strerror or type(error).__name__}") from None
            chosen: int = sock.getsockname()[1]
            return chosen
        used = f"{shown}:{ports[0]} " + ("is" if len(ports) == 1 else f"to {ports[-1]} are")
        raise StartError(f"{used} in use; choose another port with {choosing}")

    def tls(self, *protocols: str) -> ssl.SSLContext | None:
        """For connections that speak one of these protocols (ALPN); None: they are not encrypted.

        Raises `StartError` when the certificate or its key cannot be used.
        """
        if self.certfile is None:
            return None
        for file in (self.certfile, self.keyfile):
            if file is not None and not os.access(file, os.R_OK):
                raise StartError(f"{file} cannot be read; see --certfile and --keyfile")
        # As RFC 9113 §9.2 wants it.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(list(protocols))
        try:
            context.load_cert_chain(self.certfile, self.keyfile)
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            text = f"the certificate and key cannot be used ({reason}); see --certfile and --keyfile"
            raise StartError(text) from None
        return context


def wanted_ports(port: int, *, auto: bool, others: Collection[int | None] = ()) -> list[int]:
    """The ports to try, in order: the one asked for, and with --auto-port those after it that are not ``others``."""
    further = range(port + 1, min(port + _FURTHER_PORTS, _LAST_PORT) + 1) if auto and port else ()
    return [port, *(one for one in further if one not in others)]


def _listening(host: str, port: int) -> socket.socket:
    """Raises `OSError`."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        # Only this fails where somebody else has bound the same port and listens first.
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
