"""The shop in Flask: `gunicorn demo_app.shop.flask_app:app`."""

from __future__ import annotations

from flask import Flask, Response, jsonify, redirect, request, session
from werkzeug.wrappers import Response as AnyResponse

from clustersession.integrations.flask import ClusterSession

from .core import BODY_BYTES_MAX, BadForm, as_json, log_in, log_out, parse_form, set_quantity, view, wants_json
from .page import render

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES_MAX
ClusterSession(app)  # all that clustersession needs; the rest comes from the environment


@app.get("/")
def shop() -> AnyResponse:
    return _shown() if wants_json(request.headers.get("Accept")) else Response(render(view(session)))


@app.post("/login")
def login() -> AnyResponse:
    log_in(session, parse_form(request.get_data()))
    return _answer()


@app.post("/cart")
def cart() -> AnyResponse:
    set_quantity(session, parse_form(request.get_data()))
    return _answer()


@app.post("/logout")
def logout() -> AnyResponse:
    log_out(session)
    return _answer()


@app.get("/healthz")
def healthz() -> AnyResponse:
    return Response("ok\n", mimetype="text/plain")


@app.errorhandler(BadForm)
def bad_form(error: BadForm) -> AnyResponse:
    return Response(f"{error}\n", 400, mimetype="text/plain")


def _answer() -> AnyResponse:
    return _shown() if wants_json(request.headers.get("Accept")) else redirect("/", 303)


def _shown() -> AnyResponse:
    return jsonify(as_json(view(session)))
