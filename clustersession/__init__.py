"""Server-side sessions for Python web apps, kept on the app hosts themselves: a master and a backup for each session."""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    ChangeAfterResponse,
    ClusterSessionError,
    ConfigError,
    ConflictingWrite,
    Corrupt,
    LateWrite,
    LockLost,
    LoginTooOld,
    PeerError,
    SessionLocked,
    SessionRefused,
    SessionTooLarge,
    SessionUnavailable,
    StoreError,
    TooManySessions,
    ValueNotSupported,
    ValueTypeMismatch,
)

if TYPE_CHECKING:
    from .middleware.users import users
    from .middleware.wsgi import SessionMiddleware as WSGISessionMiddleware

__version__ = "0.1.0"

__all__ = [
    "ChangeAfterResponse",
    "ClusterSessionError",
    "ConfigError",
    "ConflictingWrite",
    "Corrupt",
    "LateWrite",
    "LockLost",
    "LoginTooOld",
    "PeerError",
    "SessionLocked",
    "SessionRefused",
    "SessionTooLarge",
    "SessionUnavailable",
    "StoreError",
    "TooManySessions",
    "ValueNotSupported",
    "ValueTypeMismatch",
    "WSGISessionMiddleware",
    "__version__",
    "users",
]

if not TYPE_CHECKING:  # so that a wrong name is an error for type checkers too

    def __getattr__(name: str) -> object:
        """The middleware is loaded when it is asked for: what only wants the errors or the command line does not pay for it."""
        if name == "WSGISessionMiddleware":
            return import_module(".middleware.wsgi", __name__).SessionMiddleware
        if name == "users":
            return import_module(".middleware.users", __name__).users
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
