"""Where the rows are, and which of them are held out."""

from typing import Final

import msgspec

from watchkeeper.training.declaration.errors import DeclarationError

LARGEST_BLOCK: Final = 500  # ids, of the blocks that grow
_FEWEST_BLOCKS: Final = 20


class Refresh(msgspec.Struct, frozen=True):
    """One incremental SQL statement that aggregates other tables into the rows of the history.

    ``statement`` is an ``INSERT … SELECT`` that adds the missing rows to ``table``. It should read
    only what the new rows need. A primary key of the table prevents two runs at the same time from
    adding a row twice. ``create`` makes the table where it is missing; use ``IF NOT EXISTS``,
    because two first runs can start at the same time.
    """

    table: str
    create: str
    statement: str


class Source(msgspec.Struct, frozen=True):
    """The query on the operational database that returns the history.

    ``id`` names an integer column whose values rise in time and never change; it orders the rows.
    Columns that the declaration does not name are dropped, for example identifiers. ``refresh``
    runs before the query.
    """

    query: str
    id: str
    refresh: Refresh | None = None


class Split(msgspec.Struct, frozen=True):
    """Which rows are held out, and how many rows are used.

    ``held_out`` is the share of the history, in whole blocks of ``block_rows`` consecutive ids.
    Neighbouring rows are alike, so a single held-out row would be half known. Blocks also give
    the reference sample stretches as long as the windows of the drift watch. 0 lets the blocks
    grow with the ids, from 10 rows to 500, see :func:`watchkeeper.training.split.block_numbers`.

    ``recent_held_out`` is the share of labelled predictions, chosen by their ids. It is larger,
    because the gate uses only the held-out ones.

    ``group`` names a column of the source with the machine, person or place that a row is about.
    All rows of a group are on one side, predictions by their ``subject`` too. Then whole groups
    are held out, and no blocks. Name it if clients ask about groups that training does not know.

    ``max_duplicates`` is the largest share of rows of the history, from 0 to 1, that may have the
    features of an earlier row, beyond the share that the features allow by chance; see
    :mod:`watchkeeper.training.duplicates`. A table that is loaded twice has 0.5, an idle machine
    that repeats its readings has less. Duplicates below the limit are harmless, because equal rows
    are on one side of the split. 1.0 says that equal rows are observations of their own: there is
    no limit, and they are split like all other rows.

    ``history_rows`` limits how many labelled rows of the history are read. If there are more, a
    sample of whole blocks is read, see :mod:`watchkeeper.training.sampler`. 0 is no limit. The
    default is for a table with ten columns and 4 GiB of memory.

    ``recent_rows`` limits how many of the newest labelled predictions are read, and after a drift
    how many of the newest predictions of each version. Without a drift the newest
    ``reference_rows`` predictions of each version are read. A new regime needs at least
    ``minimum_reference`` rows to become the reference of the drift watch.

    Of the recent rows of a reference, one request, client, subject or payload may have its usual
    share plus ``max_share`` (0 to 1), see :mod:`watchkeeper.training.representative`. 1.0 is no
    limit.
    """

    block_rows: int = 0
    held_out: float = 0.3
    recent_held_out: float = 0.4
    group: str = ""
    max_duplicates: float = 0.3
    history_rows: int = 3_000_000
    recent_rows: int = 50_000
    reference_rows: int = 5000
    minimum_reference: int = 200
    max_share: float = 0.1

    def __post_init__(self) -> None:
        for name in ("held_out", "recent_held_out", "max_duplicates", "max_share"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise DeclarationError(f"split: {name} is {share:g}; it must be from 0 to 1")
        if self.block_rows < 0:
            raise DeclarationError(
                f"split: block_rows is {self.block_rows}; it must be at least 1, or 0 for blocks "
                "that grow with the ids"
            )
        if self.history_rows and self.history_rows < self.smallest_sample:
            raise DeclarationError(
                f"split: history_rows is {self.history_rows}; it must be at least "
                f"{self.smallest_sample}, for {_FEWEST_BLOCKS} blocks of {self.largest_block} ids, "
                "or 0 for no limit"
            )

    @property
    def largest_block(self) -> int:
        """The number of ids of the largest block."""
        return self.block_rows or LARGEST_BLOCK

    @property
    def smallest_sample(self) -> int:
        """The smallest limit of rows that leaves blocks for both sides of the split."""
        return _FEWEST_BLOCKS * self.largest_block
