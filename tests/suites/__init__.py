"""The session tests of Django, Flask and Starlette themselves, over our engine, interface and middleware."""
