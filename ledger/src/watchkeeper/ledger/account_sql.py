"""The statements about users, for each kind of database."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Dialect, column, literal, select, table

from watchkeeper.ledger.tables import metadata

# The names of policies of row-level security. The first one admits every user to all rows, so that
# only the users with a policy of their own are limited.
EVERYONE: Final = "everyone"


class AccountSQL(Protocol):
    """What a kind of database is told about its users."""

    def set_password(self, connection: Connection, name: str, password: str) -> None:
        """Create a user with a password, or change the password of one that exists."""

    def advice(self, name: str) -> str:
        """Return the statement with which an administrator creates a user."""

    def grant(self, connection: Connection, rights: str, relation: str, name: str) -> None:
        """Grant rights on a table to a user."""

    def limit_rows(self, connection: Connection, users: Mapping[str, str | None]) -> None:
        """Limit each user to the rows of its model; None for all rows."""


def account_sql(dialect: Dialect) -> AccountSQL | None:
    """Return the statements of a database, None for one that has no users."""
    match dialect.name:
        case "postgresql":
            return _PostgreSQL(dialect)
        case "mysql" | "mariadb":
            return _MySQL(dialect)
        case _:
            return None


class _Statements:
    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def _quoted(self, name: str) -> str:
        return self._dialect.identifier_preparer.quote_identifier(name)

    def _literal(self, value: str) -> str:
        options = {"literal_binds": True}
        return str(literal(value).compile(dialect=self._dialect, compile_kwargs=options))


class _PostgreSQL(_Statements):
    def set_password(self, connection: Connection, name: str, password: str) -> None:
        # The server gets a digest, so that no log of statements has the password.
        driver: Any = connection.connection.driver_connection
        words = (password.encode(), name.encode(), b"scram-sha-256")
        digest = driver.pgconn.encrypt_password(*words).decode()
        roles = table("pg_roles", column("rolname"))
        exists = connection.execute(select(roles).where(roles.c.rolname == name)).first()
        connection.exec_driver_sql(
            f"{'ALTER' if exists else 'CREATE'} ROLE {self._quoted(name)} "
            f"LOGIN PASSWORD {self._literal(digest)}"
        )

    def advice(self, name: str) -> str:
        return f"CREATE ROLE {self._quoted(name)} LOGIN PASSWORD '<the password in its URL>'"

    def grant(self, connection: Connection, rights: str, relation: str, name: str) -> None:
        connection.exec_driver_sql(
            f"GRANT {rights} ON {self._quoted(relation)} TO {self._quoted(name)}"
        )

    def limit_rows(self, connection: Connection, users: Mapping[str, str | None]) -> None:
        # A change of a policy blocks the table for a moment, so only differences are changed.
        # The comment of a policy says which model it admits.
        found: dict[tuple[str, str], str | None] = {
            (relation, policy): model
            for relation, policy, model in connection.exec_driver_sql(
                "SELECT c.relname, p.polname, obj_description(p.oid, 'pg_policy') "
                "FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid "
                "WHERE c.relnamespace = current_schema()::regnamespace"
            )
        }
        for relation in metadata.tables:
            on = f"ON {self._quoted(relation)}"
            if (relation, EVERYONE) not in found:
                connection.exec_driver_sql(
                    f"CREATE POLICY {EVERYONE} {on} USING (true) WITH CHECK (true)"
                )
                connection.exec_driver_sql(f"ALTER TABLE {on[3:]} ENABLE ROW LEVEL SECURITY")
            for name, model in users.items():
                policy = f"rows of {name}"[:63]
                if found.get((relation, policy)) == model:
                    continue
                role, named = self._quoted(name), f"{self._quoted(policy)} {on}"
                connection.exec_driver_sql(f"DROP POLICY IF EXISTS {named}")
                if model is not None:
                    own = f"(model = {self._literal(model)})"
                    connection.exec_driver_sql(
                        f"CREATE POLICY {named} AS RESTRICTIVE TO {role} "
                        f"USING {own} WITH CHECK {own}"
                    )
                    connection.exec_driver_sql(
                        f"COMMENT ON POLICY {named} IS {self._literal(model)}"
                    )


class _MySQL(_Statements):
    def set_password(self, connection: Connection, name: str, password: str) -> None:
        user, secret = self._literal(name), self._literal(password)
        connection.exec_driver_sql(f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY {secret}")
        connection.exec_driver_sql(f"ALTER USER {user} IDENTIFIED BY {secret}")

    def advice(self, name: str) -> str:
        return f"CREATE USER {self._literal(name)} IDENTIFIED BY '<the password in its URL>'"

    def grant(self, connection: Connection, rights: str, relation: str, name: str) -> None:
        connection.exec_driver_sql(
            f"GRANT {rights} ON {self._quoted(relation)} TO {self._literal(name)}"
        )

    def limit_rows(self, connection: Connection, users: Mapping[str, str | None]) -> None:
        """Do nothing: these databases have no row-level security."""
