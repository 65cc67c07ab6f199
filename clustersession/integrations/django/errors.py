"""Our errors as Django's request handling knows them."""

from __future__ import annotations

from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import BadRequest
from django.http import HttpResponse

from ...errors import ConflictingWrite, LateWrite, SessionUnavailable
from ...runtime.headers import SessionHeaders
from ...runtime.refusal import refusal


class DjangoSessionUnavailable(SessionUnavailable, BadRequest):
    """`SessionUnavailable`. As a `BadRequest`, Django makes a plain answer of it wherever it is raised, also in the
    middlewares between ours and the view; ours turns that into the 503. Anything else would be a 500 there."""


class DjangoLateWrite(LateWrite, UpdateError):
    """`LateWrite`, as an explicit `request.session.save()` raises it."""


class DjangoConflictingWrite(ConflictingWrite, UpdateError):
    """`ConflictingWrite`, as an explicit `request.session.save()` raises it."""


def update_error(error: LateWrite) -> DjangoLateWrite | DjangoConflictingWrite:
    return DjangoConflictingWrite(error.key) if isinstance(error, ConflictingWrite) else DjangoLateWrite(error.reason)


def error_response(error: SessionUnavailable | LateWrite, session: SessionHeaders) -> HttpResponse:
    """503 or 409, to be repeated."""
    answer = refusal(error, session)
    response = HttpResponse(answer.body, status=answer.status)
    for name, value in answer.headers:
        if name != "Set-Cookie":
            response.headers[name] = value
    return response
