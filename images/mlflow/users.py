"""Give the users of training and servers their passwords and rights, before MLflow starts.

MLFLOW_USERS names a folder with a file for each of these users: its name is that of the user, its
content the password. MLFLOW_AUTH_CONFIG_PATH names MLflow's configuration, with the database of its
users. A repetition changes only what differs, so a changed password takes effect at the next start.

The rights are those of a role for each user, on all experiments and registered models, those of the
future too. Everybody may create both, and whoever creates one may do everything with it.
"""

import os
import sys
from pathlib import Path
from typing import Final

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.server.auth.config import read_auth_config
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

RIGHTS: Final = {"serving": "READ", "training": "EDIT"}
KINDS: Final = ("experiment", "registered_model")


def main() -> None:
    """Create the users, or correct what differs."""
    folder = Path(os.environ["MLFLOW_USERS"])
    passwords = {
        path.name: path.read_text(encoding="utf-8").strip()
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")  # the links of a mounted Secret
    }
    if unknown := passwords.keys() - RIGHTS.keys():
        sys.exit(f"MLFLOW_USERS={folder}: a file is named {min(unknown)}; known are {[*RIGHTS]}")
    store = SqlAlchemyStore()
    store.init_db(read_auth_config().database_uri)
    for name, password in passwords.items():
        try:
            _set_user(store, name, password)
            _set_rights(store, name)
        except MlflowException as error:
            # Another pod that starts at the same time was a moment faster.
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise


def _set_user(store: SqlAlchemyStore, name: str, password: str) -> None:
    if not store.has_user(name):
        store.create_user(name, password)
    elif not store.authenticate_user(name, password):
        store.update_user(name, password=password)


def _set_rights(store: SqlAlchemyStore, name: str) -> None:
    roles = {role.name: role for role in store.list_roles([DEFAULT_WORKSPACE_NAME])}
    title = f"watchkeeper-{name}"
    role = roles.get(title) or store.create_role(title, DEFAULT_WORKSPACE_NAME)
    found = {(p.resource_type, p.resource_pattern): p for p in store.list_role_permissions(role.id)}
    for kind in KINDS:
        present = found.get((kind, "*"))
        if present is None:
            store.add_role_permission(role.id, kind, "*", RIGHTS[name])
        elif present.permission != RIGHTS[name]:
            store.update_role_permission(present.id, RIGHTS[name])
    user = store.get_user(name)
    if title not in {each.name for each in store.list_user_roles(user.id)}:
        store.assign_role_to_user(user.id, role.id)


if __name__ == "__main__":
    main()
