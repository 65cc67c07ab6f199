"""Sessions of the old system in a table of a database, through any DB-API 2.0 module (PEP 249)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, Literal, NamedTuple

from ..errors import ConfigError
from .shelf import PAGE, Errors, Kept, after, answers

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
Dates = Literal["text", "naive", "aware"]
"""How a time is handed to the database: as SQLite's text, as a datetime without a zone, or as one with it (PostgreSQL's
`timestamp with time zone`, which Django makes there)."""


class Table(NamedTuple):
    """Where the sessions are. `text`: the data column holds text."""

    name: str
    key: str
    data: str
    expires: str
    text: bool


def flask_session_table(name: str = "sessions") -> Table:
    """Flask-Session's; `name` is SESSION_SQLALCHEMY_TABLE, after the schema and a dot where it is in one."""
    return Table(name, "session_id", "data", "expiry", text=False)


def django_table(name: str = "django_session") -> Table:
    """Django's, or that of a session model of one's own."""
    return Table(name, "session_key", "session_data", "expire_date", text=True)


class SqlShelf:
    """`connect` gives a connection that is closed after use (a pool's takes it back); `errors` is what it and the driver raise,
    `(sqlite3.Error,)`. `mark` stands for a value in a statement: `?` or `%s`. Times without a zone are of `zone`.

    Raises `ConfigError` for a name of a table or a column that is none.
    """

    kind = "sql"

    def __init__(
        self,
        connect: Callable[[], Any],
        table: Table,
        *,
        errors: Errors,
        mark: Literal["?", "%s"] = "%s",
        dates: Dates = "naive",
        zone: tzinfo = UTC,
    ) -> None:
        for name in table[:4]:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    "table", f"{name!r} is no name of a table or column", "Use letters, digits, underscores and one dot"
                )
        self._connect, self._table, self._errors, self._dates, self._zone = connect, table, errors, dates, zone
        name, key, data, expires = table[:4]
        where = f"WHERE {key} = {mark}"
        self._select = f"SELECT {data}, {expires} FROM {name} {where}"  # noqa: S608  - names only, checked above
        self._update = f"UPDATE {name} SET {data} = {mark}, {expires} = {mark} {where}"  # noqa: S608
        self._insert = f"INSERT INTO {name} ({data}, {expires}, {key}) VALUES ({mark}, {mark}, {mark})"  # noqa: S608
        self._list = f"SELECT {key} FROM {name} WHERE {key} > {mark} ORDER BY {key} LIMIT {PAGE}"  # noqa: S608
        self._delete = f"DELETE FROM {name} {where}"  # noqa: S608

    def get(self, key: str, now: float) -> Kept | None:
        """The row. One without an end is over, as it is for both libraries."""
        with self._cursor() as cursor:
            cursor.execute(self._select, (key,))
            row = cursor.fetchone()
        if row is None or row[0] is None:
            return None
        data, at = row
        return Kept(data.encode() if isinstance(data, str) else bytes(data), 0.0 if at is None else self._unix(at))

    def put(self, key: str, data: bytes, expires: float, now: float, *, new: bool) -> bool:
        """An INSERT, or an UPDATE of the row that is there."""
        values = (data.decode() if self._table.text else data, self._column(expires), key)
        with self._cursor() as cursor:
            cursor.execute(self._insert if new else self._update, values)
            if cursor.rowcount > 0:
                return True
            cursor.execute(self._select, (key,))  # MySQL does not count a row that was the same already
            return cursor.fetchone() is not None

    def drop(self, key: str) -> None:
        """A DELETE."""
        with self._cursor() as cursor:
            cursor.execute(self._delete, (key,))

    def keys(self, prefix: str, cursor: str) -> Iterator[tuple[list[str], str]]:
        """In the order of the column's index, each page a SELECT with a LIMIT."""
        last, more = cursor, True
        while more:
            with self._cursor() as selection:
                selection.execute(self._list, (last,))
                keys = [str(key) for (key,) in selection.fetchall()]
            more = len(keys) == PAGE
            last = keys[-1] if keys else last
            yield [key for key in keys if key.startswith(prefix)], after(last, prefix) if more else ""

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        """One transaction on a connection of its own; what fails is rolled back by closing it."""
        with answers(self.kind, self._errors), closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            yield cursor
            connection.commit()

    def _unix(self, at: datetime | str) -> float:
        moment = datetime.fromisoformat(at) if isinstance(at, str) else at
        return (moment.replace(tzinfo=self._zone) if moment.tzinfo is None else moment).timestamp()

    def _column(self, at: float) -> datetime | str:
        moment = datetime.fromtimestamp(at, self._zone)
        if self._dates == "aware":
            return moment
        naive = moment.replace(tzinfo=None)
        return naive if self._dates == "naive" else naive.isoformat(" ", "microseconds")
