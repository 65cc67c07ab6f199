"""A shop whose sessions are those of Flask-Session on Redis, with clustersession beside it, in whatever mode the environment says."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request, session
from flask_session import Session
from redis import Redis

from clustersession.integrations.flask import ClusterSession

app = Flask(__name__)
app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis("127.0.0.1", int(os.environ["OLD_REDIS_PORT"])))
Session(app)
ClusterSession(app, adopt=True)


@app.get("/look")
def look() -> Any:
    return {"user": session.get("_user_id"), "cart": session.get("cart", [])}


@app.get("/login")
@app.get("/add")
def change() -> Any:
    if "user" in request.args:
        session["_user_id"] = request.args["user"]
    else:
        session["cart"] = [*session.get("cart", []), request.args["item"]]
    return look()


@app.get("/logout")
def logout() -> Any:
    session.clear()
    return {"user": None, "cart": []}
