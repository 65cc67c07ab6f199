"""Flask-Session, on any of its stores."""

from __future__ import annotations

import re
import secrets
from typing import Final

from .files import CachelibFiles
from .forms import FlaskSessionForm, Serializer
from .keyed import Ids, KeyedSource
from .shelf import Shelf
from .signing import itsdangerous_signer

_ID: Final = re.compile(r"[A-Za-z0-9._~-]{16,200}")
_ID_BYTES: Final = 32


class FlaskSession(KeyedSource):
    """`prefix` is SESSION_KEY_PREFIX, `lifetime_s` PERMANENT_SESSION_LIFETIME, `permanent` SESSION_PERMANENT. With
    SESSION_USE_SIGNER, `signed_with` is the SECRET_KEY.

    New sessions are written as `serializer` says (SESSION_SERIALIZATION_FORMAT; pickle before 0.7), and always as pickle
    where cachelib keeps them; a session that is there keeps the form it has.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        prefix: str = "session:",
        lifetime_s: float = 31 * 86400,
        cookie_name: str = "session",
        signed_with: str | bytes | None = None,
        serializer: Serializer = "msgpack",
        permanent: bool = True,
    ) -> None:
        signer = None if signed_with is None else itsdangerous_signer([signed_with], "flask-session", derivation="hmac")
        form = FlaskSessionForm("pickle" if isinstance(shelf, CachelibFiles) else serializer, permanent=permanent)
        ids = Ids(_ID, lambda: secrets.token_urlsafe(_ID_BYTES), signer)
        super().__init__("flask-session", cookie_name, shelf, form, ids, prefix=prefix, lifetime_s=lifetime_s)
