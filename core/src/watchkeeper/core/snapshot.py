"""The snapshot of a version: the table of all rows that its training run has read."""

import msgspec


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table in the store of snapshots, by its content.

    The store names objects by their MD5, as DVC does, so that DVC can read it. Whoever reads the
    table compares the SHA-256.

    Attributes:
        url: The store that it was written to.
        sha256: The SHA-256 of the file, in hex.
        md5: The MD5 of the file, in hex.
        size: The size of the file, in bytes.
        rows: The number of rows.
    """

    url: str
    sha256: str
    md5: str
    size: int
    rows: int
