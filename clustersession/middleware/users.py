"""All sessions of a user, for code that is no request of an app: jobs, commands, an admin's script on a host of the cluster."""

from __future__ import annotations

from ..runtime.users import Users
from .assembly import EngineSource, Settings


def users(config: Settings = None) -> Users:
    """`config` None: from the environment. Opens the host's store, and connections to peers, when it is first used; waits for the
    host's node, or starts one, as a worker of an app does. Raises `ConfigError`.

    Where sessions of before are being taken over, use the app's own (`session.users`, or that of the framework's module): only
    it also refuses those that are not taken over yet.
    """
    return Users(EngineSource(config, framework="job"))
