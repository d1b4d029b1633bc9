"""Noting which statement of which file defined an object, with an event trigger dropped afterwards."""

from __future__ import annotations

import secrets

import psycopg
from psycopg import sql
from psycopg.errors import Diagnostic

_FUNCTION = """
CREATE FUNCTION {schema}.note() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $note$
DECLARE command record;
BEGIN
  FOR command IN SELECT * FROM pg_catalog.pg_event_trigger_ddl_commands() LOOP
    IF command.object_identity IS NOT NULL AND NOT command.in_extension
       AND command.schema_name IS DISTINCT FROM 'pg_temp'
       AND (command.command_tag LIKE 'CREATE %' OR command.command_tag = 'ALTER POLICY') THEN
      RAISE INFO USING MESSAGE = {mark} || command.object_type || ' ' || command.object_identity;
    END IF;
  END LOOP;
END $note$
"""


class Places:
    """The event trigger of one load and what it said.

    It speaks through INFO messages, which reach the client whatever client_min_messages the script sets.
    """

    def __init__(self) -> None:
        self._name = f"rlsaudit_{secrets.token_hex(6)}"
        self._mark = f"{self._name}:"
        self._heard: list[str] = []
        self.found: dict[str, tuple[str, int]] = {}

    def install(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        """Create the trigger in a schema of its own.  Raises psycopg.Error."""
        name = sql.Identifier(self._name)
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        connection.execute(sql.SQL(_FUNCTION).format(schema=name, mark=sql.Literal(self._mark)))
        trigger = "CREATE EVENT TRIGGER {0} ON ddl_command_end EXECUTE FUNCTION {0}.note()"
        connection.execute(sql.SQL(trigger).format(name))

    def remove(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        """Drop all that ``install`` made.  Raises psycopg.Error."""
        name = sql.Identifier(self._name)
        connection.execute(sql.SQL("DROP EVENT TRIGGER IF EXISTS {}").format(name))
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))

    def listen(self, diagnostic: Diagnostic) -> None:
        """Notice handler of the loading connection."""
        message = diagnostic.message_primary or ""
        if message.startswith(self._mark):
            self._heard.append(message.removeprefix(self._mark))

    def settle(self, file: str, line: int) -> None:
        """Attribute what was heard to the statement that has just succeeded."""
        for identity in self._heard:
            self.found[identity] = (file, line)
        self._heard.clear()

    def forget(self) -> None:
        """Drop what a failed statement said."""
        self._heard.clear()
