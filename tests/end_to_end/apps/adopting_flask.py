"""The shop on Flask-Session and Redis, with clustersession beside it, in whatever mode the environment says."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request, session
from flask_session import Session
from redis import Redis

from clustersession.integrations.flask import ClusterSession

from .adopting import PATHS, visit

app = Flask(__name__)
app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis("127.0.0.1", int(os.environ["OLD_REDIS_PORT"])))
Session(app)
ClusterSession(app, adopt=True)


def page() -> Any:
    return visit(session, request.path, request.args)


for each in PATHS:
    app.add_url_rule(f"/{each}", each, page)
