"""Check that Secrets have their keys: ``python -m watchkeeper.core.secret_keys FOLDER SECRET/KEY``.

Each key is a file of the folder. A pod that mounts a key that is missing waits for it and says so
in its Events only, so this is checked before an install. Exit code 0: all keys exist. 2: the
message names those that do not.
"""

import sys
from pathlib import Path

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_SUCCESS


def missing(folder: Path, wanted: list[str]) -> dict[str, list[str]]:
    """Return the keys that have no file, by Secret.

    Args:
        folder: contains a folder for each Secret.
        wanted: texts such as ``stores/ledger-url``.
    """
    found: dict[str, list[str]] = {}
    for text in wanted:
        secret, _, key = text.partition("/")
        if not (folder / secret / key).is_file():
            found.setdefault(secret, []).append(key)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Check the keys; return the exit code."""
    folder, *wanted = sys.argv[1:] if arguments is None else arguments
    lacks = missing(Path(folder), wanted)
    for secret, keys in lacks.items():
        print(
            f"the Secret {secret} does not exist, or lacks keys: {', '.join(keys)}", file=sys.stderr
        )
    return EXIT_FATAL if lacks else EXIT_SUCCESS


if __name__ == "__main__":
    sys.exit(main())
