"""The declaration in the manual trains a version from a small table."""

import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pandas as pd
import pumps
from pump_failure import MODEL

from watchkeeper.core.names import CANDIDATE
from watchkeeper.ledger import Ledger
from watchkeeper.registry import Registry
from watchkeeper.training.declaration import Choice, Integer, Parameters, Real, Search
from watchkeeper.training.models import parameters_of
from watchkeeper.training.run import TrainingRequest, train

PAGE = Path(__file__).parents[2] / "docs/how-to/your-own-model.md"


def readings(rows: int) -> pd.DataFrame:
    """Make readings of the table that the manual's declaration names."""
    random = np.random.default_rng(0)
    vibration = random.gamma(4.0, 2.0, rows)
    return pd.DataFrame(
        {
            "id": np.arange(1, rows + 1),
            "pressure": random.normal(20.0, 2.0, rows),
            "vibration": vibration,
            "site": random.choice(["north", "south"], rows),
            "failed": (vibration + random.normal(0.0, 2.0, rows) > 12.0).astype(int),
        }
    )


def test_the_declaration_of_the_manual_trains_a_version_from_500_rows(
    registry: Registry, ledger: Ledger, tmp_path: Path
) -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = types.ModuleType("declaration")
    exec(compile(code, str(PAGE), "exec"), module.__dict__)  # noqa: S102 - a page of ours
    model = module.MODEL
    parameters, chosen = parameters_of(model, [])
    request = TrainingRequest(model, "manual", "a test", parameters, frozenset(chosen))
    source = pumps.database(tmp_path / "source.db", readings(500), "readings")
    version = train(request, source, registry, ledger).version
    assert registry.aliases(model.name) == {CANDIDATE: version}


def test_the_search_of_the_manual_fits_to_parameters() -> None:
    (code,) = re.findall(r"```python\n(search = .*?)```", PAGE.read_text(), re.DOTALL)

    class ForestParameters(Parameters, frozen=True):
        trees: int = 100
        leaf: Annotated[int, msgspec.Meta(ge=1)] = 2
        depth: int = 12
        rate: float = 0.1
        criterion: Literal["gini", "entropy"] = "gini"

    names = {each.__name__: each for each in (Choice, Integer, Real, Search)}
    exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - a page of ours
    search: Any = names["search"]
    model = msgspec.structs.replace(MODEL, parameters=ForestParameters, search=search)
    assert set(model.search.space) == {"leaf", "depth", "rate", "criterion"}
