"""Writing to the connection past the ASGI messages, where that is worth it.

uvicorn writes a response's head and body separately; under TLS that is two records and two system calls.  A whole small
response, and a piece of a watch, go out here in one write.  Where the ``send`` is not uvicorn's own, nothing is assumed.
"""

from __future__ import annotations

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_SMALL = 128 * 1024
"""Above this, joining head and body costs more than a second write."""
_PIECE = 64 * 1024
"""A list has megabytes: in pieces it stays in the processor's cache while it is encrypted."""
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def write_whole(send: object, status: int, head: bytes, body: bytes) -> bool:
    """Write a complete response; ``head`` is header lines without the length. False: send it the ordinary way."""
    cycle = getattr(send, "__self__", None)
    if (
        not isinstance(cycle, RequestResponseCycle)
        or cycle.disconnected
        or cycle.response_started
        or not cycle.keep_alive
        or cycle.flow.write_paused
        or len(body) > _SMALL
        or cycle.scope["method"] == "HEAD"
        or cycle.transport.is_closing()
    ):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (_STATUS[status], head, len(body), body))
    cycle.message_event.set()
    cycle.on_response()
    return True


def write_piece(send: object, piece: bytes) -> bool:
    """Write one chunk of a chunked response that has begun. False: send it the ordinary way (and wait there)."""
    cycle = getattr(send, "__self__", None)
    if (
        not isinstance(cycle, RequestResponseCycle)
        or not cycle.response_started
        or not cycle.chunked_encoding
        or cycle.response_complete
        or cycle.disconnected
        or cycle.flow.write_paused
    ):
        return False
    cycle.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    return True


def write_large(send: object, body: bytes) -> bytes:
    """Write all but the last piece of a response whose head has been sent, and return that; whole where it cannot be."""
    cycle = getattr(send, "__self__", None)
    if (
        not isinstance(cycle, RequestResponseCycle)
        or not cycle.response_started
        or cycle.chunked_encoding
        or cycle.disconnected
        or cycle.scope["method"] == "HEAD"
        or cycle.transport.is_closing()
    ):
        return body
    last = max(len(body) - 1, 0) // _PIECE * _PIECE
    for at in range(0, last, _PIECE):
        if cycle.transport.is_closing():
            break
        cycle.transport.write(body[at : at + _PIECE])
    cycle.expected_content_length -= last
    return body[last:]
