"""The test app in Flask."""

from __future__ import annotations

from typing import Any

from flask import Flask, request, session

from clustersession.integrations.flask import ClusterSession

from .actions import act

app = Flask(__name__)
ClusterSession(app)


@app.get("/end_all")
def end_all() -> Any:
    return {"ended": session.users.end_all(request.args["user"])}  # type: ignore[attr-defined]


@app.get("/count")
def count() -> Any:
    session.incr("count")  # type: ignore[attr-defined]
    session.append("turns", request.args["turn"])  # type: ignore[attr-defined]
    session[request.args["writer"]] = request.args["turn"]
    return page()


@app.get("/look")
@app.get("/set")
@app.get("/end")
def page() -> Any:
    return act(session, session.placement, session.end, request.path, request.args)  # type: ignore[attr-defined]
