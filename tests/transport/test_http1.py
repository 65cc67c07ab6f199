"""The one form of HTTP/1.1 between nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.errors import WireError
from clustersession.transport.http1 import (
    HEAD_BYTES_MAX,
    REQUEST_HEAD,
    RESPONSE_HEAD,
    STATUSES,
    Reader,
    request_bytes,
    response_bytes,
)

LINE = b"PATCH /v1/records/000102030405060708090a0b0c0d0e0f"
REQUEST = request_bytes(LINE, b"1f", b"body")
LINES = st.sampled_from([LINE, b"POST /v1/hello", b"GET /v1/records/" + b"f" * 32, b"PUT /v1/records/" + b"0" * 32])
REQUESTS = st.tuples(LINES, st.integers(0, 2**63).map(lambda sent: b"%x" % sent), st.binary(max_size=500))


def read(data: bytes, *cuts: int, head: bool = True, limit: int = 1000) -> list[tuple[bytes, bytes, bytes]]:
    """What a reader makes of the bytes, fed in pieces."""
    found: list[tuple[bytes, bytes, bytes]] = []
    reader = Reader(REQUEST_HEAD if head else RESPONSE_HEAD, lambda *message: found.append(message), limit)
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    for begin, end in zip([0, *ends], ends, strict=False):
        if begin < end:
            reader.feed(data[begin:end])
    assert reader.idle
    return found


@given(st.lists(REQUESTS, max_size=4), st.lists(st.integers(0, 3000), max_size=8))
def test_requests_are_cut_out_however_they_arrive(requests: list[tuple[bytes, bytes, bytes]], cuts: list[int]) -> None:
    """Pipelined, in one piece or byte by byte: the same requests in the same order."""
    data = b"".join(request_bytes(*request) for request in requests)
    assert read(data, *cuts) == requests


@given(st.sampled_from(sorted(STATUSES.values())), st.binary(max_size=500), st.lists(st.integers(0, 700), max_size=5))
def test_responses_are_cut_out_however_they_arrive(status: int, body: bytes, cuts: list[int]) -> None:
    """Every status comes back as it was sent."""
    [(first, sent, found)] = read(response_bytes(status, body), *cuts, head=False)
    assert (STATUSES[first], sent, found) == (status, b"", body)


def test_every_reply_has_a_status_line() -> None:
    """Whatever status the wire gives a reply, it can be sent."""
    from clustersession.core import wire

    assert {200, 403, *wire._STATUSES.values()} == set(STATUSES.values())


def test_it_is_http() -> None:
    """A request is one that any HTTP/1.1 parser reads."""
    import httptools

    class Seen:
        def __init__(self) -> None:
            self.headers: dict[bytes, bytes] = {}
            self.body = b""

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers[name] = value

        def on_body(self, body: bytes) -> None:
            self.body += body

    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(REQUEST)
    assert (parser.get_method(), parser.get_http_version(), parser.should_keep_alive()) == (b"PATCH", "1.1", True)
    assert seen.headers == {b"host": b"clustersession", b"content-length": b"4", b"cs-sent": b"1f"}
    assert seen.body == b"body"
    answer = Seen()
    httptools.HttpResponseParser(answer).feed_data(response_bytes(409, b"moved"))
    assert answer.body == b"moved"


HEAD = LINE + b" HTTP/1.1\r\nhost: clustersession\r\ncontent-length: 4\r\ncs-sent: 1f\r\n"


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        HEAD + b"content-length: 4\r\n\r\nbody",
        HEAD + b"x-more: 1\r\n\r\nbody",
        HEAD.replace(b"content-length: 4", b"content-length: 4, 4") + b"\r\nbody",
        HEAD.replace(b"content-length: 4", b"content-length: +4") + b"\r\nbody",
        HEAD.replace(b"content-length: 4", b"content-length: 04") + b"\r\nbody",
        HEAD.replace(b"content-length: 4", b"content-length:4") + b"\r\nbody",
        HEAD.replace(b"content-length: 4", b"content-length: -1") + b"\r\nbody",
        HEAD.replace(b"content-length: 4", b"content-length: ") + b"\r\nbody",
        HEAD.replace(b"content-length: 4", b"content-length : 4") + b"\r\nbody",
        HEAD.replace(b"content-length: 4", b"Content-Length: 4") + b"\r\nbody",
        HEAD.replace(b"content-length: 4\r\n", b"") + b"\r\nbody",
        HEAD.replace(b"content-length: 4", b"transfer-encoding: chunked") + b"\r\n4\r\nbody\r\n0\r\n\r\n",
        HEAD.replace(b"host: clustersession", b"host: 10.0.0.1") + b"\r\nbody",
        HEAD.replace(b"host: clustersession\r\n", b"host: clustersession\r\n folded\r\n") + b"\r\nbody",
        HEAD.replace(b"cs-sent: 1f", b"cs-sent: 0x1f") + b"\r\nbody",
        HEAD.replace(b"cs-sent: 1f", b"cs-sent: -1f") + b"\r\nbody",
        HEAD.replace(b"cs-sent: 1f", b"cs-sent: 1f\0") + b"\r\nbody",
        HEAD.replace(b"cs-sent: 1f", b"cs-sent: " + b"f" * 17) + b"\r\nbody",
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\nbody",
        HEAD.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\nbody",
        HEAD.replace(b"PATCH", b"TRACE") + b"\r\nbody",
        HEAD.replace(b"PATCH ", b"PATCH  ") + b"\r\nbody",
        HEAD.replace(b"/v1/records/00", b"/v1/records/../../etc/00") + b"\r\nbody",
        HEAD.replace(b"/v1/records/00", b"http://10.0.0.1/v1/records/00") + b"\r\nbody",
        HEAD.replace(b"0e0f", b"0e0F") + b"\r\nbody",
        HEAD.replace(b"0e0f", b"0e0f?age=1") + b"\r\nbody",
        HEAD.replace(b"\r\n", b"\n") + b"\n\r\n\r\nbody",
        b"\r\n" + REQUEST,
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT 10.0.0.1:22 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * HEAD_BYTES_MAX,
        b"A" * (HEAD_BYTES_MAX + 1),
    ],
)
def test_what_is_not_of_that_form_is_refused(data: bytes) -> None:
    """Nothing that two parsers could read in two ways, nothing of another protocol, in one piece or byte by byte."""
    with pytest.raises(WireError):
        read(data)
    with pytest.raises(WireError):
        read(data, *range(len(data)))


def test_a_body_over_the_limit_is_refused_before_it_arrives() -> None:
    """The head is enough, none of the body is waited for."""
    reader = Reader(REQUEST_HEAD, lambda *message: None, 1000)
    reader.feed(request_bytes(LINE, b"1", b"x" * 1000))
    with pytest.raises(WireError, match="a body of 1001 bytes, the limit is 1000"):
        reader.feed(request_bytes(LINE, b"1", b"x" * 1001)[:150])


def test_the_limit_may_change_between_two_messages() -> None:
    """Who proves itself with its first message may send more with the second, even where both came in one piece."""
    found: list[bytes] = []

    def arrived(first: bytes, sent: bytes, body: bytes) -> None:
        found.append(body)
        reader.body_bytes_max = 100

    reader = Reader(REQUEST_HEAD, arrived, 10)
    reader.feed(request_bytes(LINE, b"1", b"x") + request_bytes(LINE, b"1", b"y" * 100))
    assert found == [b"x", b"y" * 100]


def test_it_knows_how_far_a_message_is() -> None:
    """Idle, in a head, in a body: each has a time-out of its own."""
    reader = Reader(REQUEST_HEAD, lambda *message: None, 1000)
    stages = []
    for cut in ((0, 0), (0, 5), (5, len(REQUEST) - 1), (len(REQUEST) - 1, len(REQUEST))):
        reader.feed(REQUEST[slice(*cut)])
        stages.append((reader.idle, reader.in_body))
    assert stages == [(True, False), (False, False), (False, True), (True, False)]
