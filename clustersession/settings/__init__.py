"""The only place that reads the environment: settings from text to a checked `Config`, and back."""

from .export import child_environ, reference_page, shown, to_environ
from .kinds import is_loopback
from .load import check_admin, load_admin, load_settings, process_environ
from .notes import notes, unresolved_peers
from .ring import RingSource, check_same_secret, new_key, ring_fingerprint
from .setting import PREFIX

__all__ = [
    "PREFIX",
    "RingSource",
    "check_admin",
    "check_same_secret",
    "child_environ",
    "is_loopback",
    "load_admin",
    "load_settings",
    "new_key",
    "notes",
    "process_environ",
    "reference_page",
    "ring_fingerprint",
    "shown",
    "to_environ",
    "unresolved_peers",
]
