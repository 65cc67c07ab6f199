"""What is public is listed, and what is listed is there."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import clustersession

MODULES = [
    "clustersession",
    *(each.name for each in pkgutil.walk_packages(clustersession.__path__, "clustersession.") if "__main__" not in each.name),
]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    """Each module can be imported alone and begins with a docstring of its purpose."""
    module = importlib.import_module(name)
    assert module.__doc__


@pytest.mark.parametrize("name", [each for each in MODULES if hasattr(importlib.import_module(each), "__all__")])
def test_all_is_sorted_and_true(name: str) -> None:
    """`__all__` is sorted, has nothing twice, and each name in it exists."""
    module = importlib.import_module(name)
    names: list[str] = module.__all__
    assert names == sorted(set(names))
    assert [each for each in names if not hasattr(module, each)] == []


def test_the_wsgi_middleware_is_public_and_loaded_only_when_asked_for() -> None:
    """It can be imported from the top, and `import clustersession` alone loads neither store nor transport."""
    from clustersession import WSGISessionMiddleware
    from clustersession.middleware.wsgi import SessionMiddleware

    assert WSGISessionMiddleware is SessionMiddleware
    look = "import clustersession, sys; print([name for name in sys.modules if name.startswith('clustersession.')])"
    loaded = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "['clustersession.errors']"


def test_a_wrong_name_is_an_attribute_error() -> None:
    """Also with names that are loaded late."""
    with pytest.raises(AttributeError, match="'clustersession' has no attribute 'Nothing'"):
        vars(clustersession)["__getattr__"]("Nothing")
