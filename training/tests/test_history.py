"""The rows of a query are converted in parts of many rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pumps
import pytest

from watchkeeper.training import history
from watchkeeper.training.models import find

MODEL = find("pump-failure")


def test_parts_have_many_rows_and_do_not_change_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of one row would cost as much as one of thousands."""
    url = pumps.database(tmp_path / "source.db", pumps.readings(2500))
    whole = history.read_history(url, MODEL)
    sizes = []

    def counted(part: pd.DataFrame) -> pd.DataFrame:
        sizes.append(len(part))
        return compact(part)

    compact = history._compact
    monkeypatch.setattr(history, "_compact", counted)
    monkeypatch.setattr(history, "PART_ROWS", 1000)
    parts = history.read_history(url, MODEL)
    assert sizes == [1000, 1000, 500]
    pd.testing.assert_frame_equal(parts.columns, whole.columns)
    np.testing.assert_array_equal(parts.target, whole.target)
