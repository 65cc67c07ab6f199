"""Server-side sessions for Python web apps, kept on the app hosts themselves: a master and a backup for each session."""

from .errors import (
    ChangeAfterResponse,
    ClusterSessionError,
    ConfigError,
    Corrupt,
    LateWrite,
    PeerError,
    SessionRefused,
    SessionTooLarge,
    SessionUnavailable,
    StoreError,
    ValueNotSupported,
)

__version__ = "0.1.0"

__all__ = [
    "ChangeAfterResponse",
    "ClusterSessionError",
    "ConfigError",
    "Corrupt",
    "LateWrite",
    "PeerError",
    "SessionRefused",
    "SessionTooLarge",
    "SessionUnavailable",
    "StoreError",
    "ValueNotSupported",
    "__version__",
]
