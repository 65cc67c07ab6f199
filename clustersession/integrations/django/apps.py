"""For `INSTALLED_APPS`, which is optional: with it `manage.py check` and `runserver` look at the two settings."""

from __future__ import annotations

from django.apps import AppConfig

from .checks import ENGINE


class ClusterSessionConfig(AppConfig):
    """Registers the system checks, by being imported before they are run. There are no models and no migrations."""

    name = ENGINE
    label = "clustersession"
    verbose_name = "clustersession"
    default = True
