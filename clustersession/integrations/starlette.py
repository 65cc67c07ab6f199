"""Starlette and FastAPI: `app.add_middleware(SessionMiddleware)`, in place of Starlette's own; then `request.session`."""

from __future__ import annotations

from ..middleware.asgi import SessionMiddleware

__all__ = ["SessionMiddleware"]
