"""Where the sessions of before are read, written back and ended: a library's form of them, on the store where it keeps them."""

from .cookies import DjangoCookie, FlaskCookie, SignedCookie, StarletteCookie, StarsessionsCookie
from .django import DjangoCache, DjangoFileSession, DjangoSession, cache_prefix
from .files import CachelibFiles, DjangoFiles
from .flask_session import FlaskSession
from .forms import Opened
from .keyed import Ids, KeyedSource
from .memcached import MemcachedShelf
from .pickles import restricted_unpickle
from .redis import RedisShelf
from .shelf import Kept, ListedShelf, Shelf, answers
from .source import Legacy, LimitedSource, ListedSource, NamedSource, Page, Source
from .sql import SqlShelf, Table, django_table, flask_session_table
from .starsessions import Starsessions

__all__ = [
    "CachelibFiles",
    "DjangoCache",
    "DjangoCookie",
    "DjangoFileSession",
    "DjangoFiles",
    "DjangoSession",
    "FlaskCookie",
    "FlaskSession",
    "Ids",
    "Kept",
    "KeyedSource",
    "Legacy",
    "LimitedSource",
    "ListedShelf",
    "ListedSource",
    "MemcachedShelf",
    "NamedSource",
    "Opened",
    "Page",
    "RedisShelf",
    "Shelf",
    "SignedCookie",
    "Source",
    "SqlShelf",
    "StarletteCookie",
    "Starsessions",
    "StarsessionsCookie",
    "Table",
    "answers",
    "cache_prefix",
    "django_table",
    "flask_session_table",
    "restricted_unpickle",
]
