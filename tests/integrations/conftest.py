"""Django's settings come before anything else of Django."""

from tests.integrations import django_project

__all__ = ["django_project"]
