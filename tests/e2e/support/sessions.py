"""The sessions of an installation's PostgreSQL."""

from installation import Installation
from sqlalchemy import text


def sessions(installation: Installation) -> dict[str, set[bool]]:
    """Return, for each user with a session from a pod, whether the sessions are encrypted."""
    query = text(
        "SELECT usename, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
        "WHERE client_addr <> inet_client_addr()"  # without those of this process
    )
    found: dict[str, set[bool]] = {}
    with installation.ledger.read() as connection:
        for user, encrypted in connection.execute(query):
            found.setdefault(user, set()).add(encrypted)
    return found
