"""The statements about users, for each kind of database."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Dialect, column, literal, select, table

# The names of policies of row-level security. The first one admits every user to all rows, so that
# only the users with a policy of their own are limited.
EVERYONE: Final = "everyone"


class AccountSQL(Protocol):
    """What a kind of database is told about its users."""

    def set_password(self, connection: Connection, name: str, password: str) -> bool:
        """Create a user with a password, or change the password of one that was created here.

        Returns:
            False if the user exists and is somebody else's; it is not changed.
        """

    def advice(self, name: str) -> str:
        """Return the statement with which an administrator creates a user."""

    def grants(self, connection: Connection, rights: Mapping[str, str], name: str) -> list[str]:
        """Return the statements that give a user its rights by table, and no others."""

    def limit_rows(
        self, connection: Connection, relation: str, users: Mapping[str, str | None]
    ) -> None:
        """Limit each user to the rows of its model in a table; None for all rows."""


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
    def set_password(self, connection: Connection, name: str, password: str) -> bool:
        database = connection.engine.url.database
        roles = table("pg_roles", column("oid"), column("rolname"), column("rolcanlogin"))
        described = table("pg_shdescription", column("objoid"), column("description"))
        known = connection.execute(
            select(roles.c.rolcanlogin, described.c.description)
            .join_from(roles, described, roles.c.oid == described.c.objoid, isouter=True)
            .where(roles.c.rolname == name)
        ).first()
        ours = f"created by Watchkeeper for {database}"
        # A restore of a backup creates missing users without a login.
        if known is not None and known.rolcanlogin and known.description != ours:
            return False
        # The server gets a digest, so that no log of statements has the password.
        driver: Any = connection.connection.driver_connection
        words = (password.encode(), name.encode(), b"scram-sha-256")
        digest = driver.pgconn.encrypt_password(*words).decode()
        user = self._quoted(name)
        connection.exec_driver_sql(
            f"{'ALTER' if known else 'CREATE'} ROLE {user} LOGIN PASSWORD {self._literal(digest)}"
        )
        connection.exec_driver_sql(f"COMMENT ON ROLE {user} IS {self._literal(ours)}")
        return True

    def advice(self, name: str) -> str:
        return f"CREATE ROLE {self._quoted(name)} LOGIN PASSWORD '<the password in its URL>'"

    def grants(self, connection: Connection, rights: Mapping[str, str], name: str) -> list[str]:
        user, database = self._quoted(name), connection.engine.url.database or ""
        schema = str(connection.exec_driver_sql("SELECT current_schema()").scalar_one())
        asked = connection.exec_driver_sql(
            f"SELECT has_database_privilege({self._literal(name)}, current_database(), 'CONNECT'), "
            f"has_schema_privilege({self._literal(name)}, current_schema(), 'USAGE')"
        ).one()
        statements = []
        if not asked[0]:
            statements.append(f"GRANT CONNECT ON DATABASE {self._quoted(database)} TO {user}")
        if not asked[1]:
            statements.append(f"GRANT USAGE ON SCHEMA {self._quoted(schema)} TO {user}")
        for relation, granted in rights.items():
            on = f"ON {self._quoted(relation)}"
            statements += [f"REVOKE ALL {on} FROM {user}", f"GRANT {granted} {on} TO {user}"]
        return statements

    def limit_rows(
        self, connection: Connection, relation: str, users: Mapping[str, str | None]
    ) -> None:
        # A change of a policy blocks the table for a moment, so only differences are changed.
        # The comment of a policy says which model it admits.
        on = f"ON {self._quoted(relation)}"
        rows = connection.exec_driver_sql(
            "SELECT polname, obj_description(oid, 'pg_policy') FROM pg_policy "  # noqa: S608
            f"WHERE polrelid = {self._literal(self._quoted(relation))}::regclass"
        )
        found: dict[str, str | None] = {row[0]: row[1] for row in rows}
        if EVERYONE not in found:
            connection.exec_driver_sql(
                f"CREATE POLICY {EVERYONE} {on} USING (true) WITH CHECK (true)"
            )
            connection.exec_driver_sql(
                f"ALTER TABLE {self._quoted(relation)} ENABLE ROW LEVEL SECURITY"
            )
        for name, model in users.items():
            policy = f"rows of {name}"[:63]
            if found.get(policy) == model:
                continue
            role, named = self._quoted(name), f"{self._quoted(policy)} {on}"
            connection.exec_driver_sql(f"DROP POLICY IF EXISTS {named}")
            if model is not None:
                own = f"(model = {self._literal(model)})"
                connection.exec_driver_sql(
                    f"CREATE POLICY {named} AS RESTRICTIVE TO {role} USING {own} WITH CHECK {own}"
                )
                connection.exec_driver_sql(f"COMMENT ON POLICY {named} IS {self._literal(model)}")


class _MySQL(_Statements):
    def set_password(self, connection: Connection, name: str, password: str) -> bool:
        user, secret = self._literal(name), self._literal(password)
        connection.exec_driver_sql(f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY {secret}")
        connection.exec_driver_sql(f"ALTER USER {user} IDENTIFIED BY {secret}")
        return True

    def advice(self, name: str) -> str:
        return f"CREATE USER {self._literal(name)} IDENTIFIED BY '<the password in its URL>'"

    def grants(self, connection: Connection, rights: Mapping[str, str], name: str) -> list[str]:  # noqa: ARG002
        user = self._literal(name)
        return [
            f"GRANT {granted} ON {self._quoted(relation)} TO {user}"
            for relation, granted in rights.items()
        ]

    def limit_rows(
        self, connection: Connection, relation: str, users: Mapping[str, str | None]
    ) -> None:
        """Do nothing: these databases have no row-level security."""
