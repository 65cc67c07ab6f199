"""The test app in Flask, which says in headers who served a request and whether its session was read without a peer.

A read is `local` if no peer was asked for a record, counted at the transport: below everything that could be mistaken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from flask import Response, g, has_request_context, request

from clustersession.core.calls import Call, Fetch, Reply
from clustersession.core.node import Member
from clustersession.ports import Outgoing
from clustersession.transport.blocking import BlockingTransport

from .flask_app import app, page

_ask, _exchange = BlockingTransport.ask, BlockingTransport.exchange


def _count(calls: Iterable[Call]) -> None:
    if has_request_context():
        g.fetched = g.get("fetched", 0) + sum(isinstance(call, Fetch) for call in calls)


def ask(self: BlockingTransport, member: Member, call: Call, deadline: float) -> Reply:
    _count([call])
    return _ask(self, member, call, deadline)


def exchange(
    self: BlockingTransport, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
) -> list[Reply | None]:
    _count(each.call for each in batch)
    return _exchange(self, batch, deadline, enough)


BlockingTransport.ask = ask  # type: ignore[method-assign]
BlockingTransport.exchange = exchange  # type: ignore[method-assign]


@app.get("/healthz")
def healthy() -> str:
    return "ok"


app.add_url_rule("/set", view_func=page, methods=["POST"])


@app.route("/slow", methods=["GET", "POST"])
def slow() -> str:
    """Says that it began, and ends when its host does; the second request that names a file `once` is answered immediately."""
    print(request.args["mark"], flush=True)
    once = request.args.get("once")
    if once is None or not Path(once).exists():
        if once is not None:
            Path(once).touch()
        time.sleep(float(request.args["seconds"]))
    return "ended"


@app.after_request
def say_who(response: Response) -> Response:
    response.headers["X-Served-By"] = os.environ["CLUSTERSESSION_NODE"]
    response.headers["X-Session-Read"] = f"{g.fetched} calls" if g.get("fetched") else "local"
    return response
