"""The sample of a large history that a training run has read."""

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """Which rows of a history with a truth were read: whole blocks of consecutive ids.

    Attributes:
        rows: How many rows were read.
        of: How many rows the history had.
        one_in: One in so many blocks was read, on average.
    """

    rows: int
    of: int
    one_in: int

    def __str__(self) -> str:
        """Return a statement for people."""
        return (
            f"{self.rows:,} of {self.of:,} rows: one in {self.one_in} blocks of "
            "consecutive ids, chosen by a hash of the block's number"
        )
