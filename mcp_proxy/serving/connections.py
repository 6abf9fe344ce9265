"""Connections that are open, and their end at the stop, whichever server they are of."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import Callable, Iterable
from contextlib import suppress

DEAF = 1.0
"""Seconds after which a client that has taken nothing of what waits for it counts as one that does not read."""
_LOOK = 0.1
"""Seconds between looks at them."""


async def end(connections: Callable[[], Iterable[asyncio.WriteTransport]], seconds: float) -> None:
    """Wait until none is open. Cut off clients that do not read, and after ``seconds`` all that are left.

    Those that read get their answers meanwhile, and the server ends the connections that are idle. It would end
    the others by cancelling their tasks, which neither ends a wait for a client nor passes without error messages.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    seen: dict[asyncio.WriteTransport, tuple[int, float]] = {}
    while (now := clock()) < until and (left := list(connections())):
        for one in left:
            waiting = untaken(one)
            before, since = seen.get(one, (0, now))
            if waiting != before:
                seen[one] = waiting, now
            elif waiting and now - since >= DEAF:
                one.abort()
        await asyncio.sleep(min(_LOOK, until - now))
    for one in list(connections()):
        one.abort()


def untaken(transport: asyncio.WriteTransport) -> int:
    """What a client has not taken: bytes kept here and, where the system tells, in the kernel; and its end, as one.

    With TLS, a client has to confirm the end.
    """
    waiting = transport.get_write_buffer_size() + transport.is_closing()
    with suppress(OSError, ValueError, AttributeError):  # not told, closed, or without its socket already
        told = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        waiting += int.from_bytes(told, sys.byteorder)
    return waiting
