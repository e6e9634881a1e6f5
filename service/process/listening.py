"""The end of listening: no connection that a client believes to have is reset.

The kernel completes handshakes by itself, and resets the connections that wait to be accepted when their socket is
closed. To accept until none waits, and then to close, leaves a moment between the two in which one more may come. On
Linux a filter closes it: the socket drops further requests for a connection, and those that it has begun to answer
are accepted. A client whose request was dropped repeats it, and finds that nobody listens.
"""

from __future__ import annotations

import asyncio
import ctypes
import select
import socket
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["accept_the_last", "refuse_handshakes"]

_SO_ATTACH_FILTER: Final = 26
"""Of asm/socket.h. Python names it for no system."""

_HANDSHAKE_SECONDS: Final = 0.1
"""The time for a handshake that has begun to end: a round trip to the client."""

_ACCEPT_SECONDS: Final = 0.2
"""The most time for the connections that wait. Where others share the socket, some may come for ever."""

_INSTRUCTIONS: Final = (
    (0x30, 0, 0, 13),  # load the flags of the TCP header
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # is it SYN alone?
    (0x06, 0, 0, 0),  # then drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # else keep all of it
)
"""A socket filter of linux/filter.h: operation, jump if true, jump if false, operand."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def refuse_handshakes(listener: socket.socket) -> bool:
    """Let a socket that listens begin no further handshake.

    Args:
        listener: of this process alone.

    Returns:
        Whether the system can do so.
    """
    if sys.platform != "linux":
        return False
    instructions = (_Instruction * len(_INSTRUCTIONS))(*(_Instruction(*each) for each in _INSTRUCTIONS))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(_Filter(len(instructions), instructions)))
    except OSError:  # a sandbox without socket filters
        return False
    return True


async def accept_the_last(listeners: Sequence[socket.socket], *, shared: bool) -> None:
    """Let the event loop accept all connections that wait, so that the sockets may be closed.

    Args:
        listeners: the sockets, on which the event loop accepts connections.
        shared: whether other processes go on to accept connections on them.
    """
    refusing = [refuse_handshakes(listener) for listener in listeners if not shared]
    if any(refusing):
        await asyncio.sleep(_HANDSHAKE_SECONDS)
    loop = asyncio.get_running_loop()
    end = loop.time() + _ACCEPT_SECONDS
    waiting = select.poll()
    for listener in listeners:
        waiting.register(listener, select.POLLIN)
    while waiting.poll(0) and loop.time() < end:
        await asyncio.sleep(0.001)
