"""The shop in FastAPI: `uvicorn demo_app.shop.fastapi_app:app`."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from clustersession.integrations.starlette import SessionMiddleware

from .core import BadForm, as_json, log_in, log_out, parse_form, set_quantity, view, wants_json
from .page import render

app = FastAPI(openapi_url=None)
app.add_middleware(SessionMiddleware)  # all that clustersession needs; the rest comes from the environment


@app.get("/")
async def shop(request: Request) -> Response:
    return _shown(request) if _program(request) else HTMLResponse(render(view(request.session)))


@app.post("/login")
async def login(request: Request) -> Response:
    log_in(request.session, parse_form(await request.body()))
    return _answer(request)


@app.post("/cart")
async def cart(request: Request) -> Response:
    set_quantity(request.session, parse_form(await request.body()))
    return _answer(request)


@app.post("/logout")
async def logout(request: Request) -> Response:
    log_out(request.session)
    return _answer(request)


@app.get("/healthz")
async def healthz() -> Response:
    return PlainTextResponse("ok\n")


@app.exception_handler(BadForm)
async def bad_form(request: Request, error: BadForm) -> Response:
    return PlainTextResponse(f"{error}\n", status_code=400)


def _answer(request: Request) -> Response:
    return _shown(request) if _program(request) else RedirectResponse("/", status_code=303)


def _program(request: Request) -> bool:
    return wants_json(request.headers.get("Accept"))


def _shown(request: Request) -> Response:
    return JSONResponse(as_json(view(request.session)))
