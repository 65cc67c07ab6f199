"""Settings of a Django project whose sessions were in files until now."""

from __future__ import annotations

import os

SECRET_KEY = "the key of the old system"
SESSION_ENGINE = "clustersession.integrations.django"
CLUSTERSESSION_ADOPT_ENGINE = "django.contrib.sessions.backends.file"
SESSION_FILE_PATH = os.environ["OLD_SESSIONS"]
MIDDLEWARE = ["clustersession.integrations.django.SessionMiddleware"]
USE_TZ = True
