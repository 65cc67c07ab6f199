"""The sessions of Flask-Session in an app's own store, as a list: its interface can only be asked for one that is known."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.sessions import SessionInterface

from ..errors import ConfigError
from ..sources import FlaskSession, RedisShelf, SqlShelf, flask_session_table
from ..sources.keyed import unlisted
from ..sources.shelf import Errors, Shelf
from ..sources.source import ListedSource

_UNLISTED = {
    "MemcachedSessionInterface": "memcached does not list its keys",
    "CacheLibSessionInterface": "cachelib does not list its keys, and the names of its files are hashes",
    "FileSystemSessionInterface": "the names of its files are hashes, from which no session's ID can be told",
}


def listing_of(app: Flask, interface: SessionInterface) -> ListedSource:
    """A source for the store of this interface. Raises `ConfigError` where there is no list."""
    kind = type(interface).__qualname__
    if kind == "RedisSessionInterface":
        shelf = _redis_shelf(interface)
    elif kind == "SqlAlchemySessionInterface":
        shelf = _sql_shelf(app, interface)
    else:
        raise unlisted(kind, _UNLISTED.get(kind, "it is not one that clustersession can list: name a source that can by --from"))
    known: Any = interface
    return FlaskSession(
        shelf,
        prefix=known.key_prefix,
        lifetime_s=app.permanent_session_lifetime.total_seconds(),
        cookie_name=app.config["SESSION_COOKIE_NAME"],
        signed_with=app.secret_key if known.use_signer else None,
    )


def _redis_shelf(interface: Any) -> Shelf:
    from redis import RedisError

    return RedisShelf(interface.client, errors=(RedisError,))


def _sql_shelf(app: Flask, interface: Any) -> Shelf:
    model = interface.sql_session_model
    with app.app_context():
        engine = interface.client.engines[model.__bind_key__]
    styles = {"qmark": "?", "format": "%s", "pyformat": "%s"}
    style = engine.dialect.paramstyle
    if style not in styles:
        remedy = "Let --from name a source with an SqlShelf of your own."
        raise ConfigError("import", f"values are handed to this database's driver in the style {style!r}", remedy)
    errors: Errors = (engine.dialect.loaded_dbapi.Error,)
    mark: Any = styles[style]
    return SqlShelf(engine.raw_connection, flask_session_table(model.__table__.fullname), errors=errors, mark=mark)
