"""The types that declare a model.

A model's package builds one :class:`Model` and names it by an entry point, see
:mod:`watchkeeper.training.models`. Nothing else in the project knows a model's columns.

    MODEL = Model(
        name="pump-failure",
        source=Source(query="SELECT id, flow, vibration, failed FROM pump_readings", id="id"),
        columns=(
            Column("flow", "FP64", unit="l/min", minimum=0.0),
            Column("vibration", "FP64", unit="mm/s", minimum=0.0),
        ),
        heads=(Head("failure_probability", features=scale, estimator=forest, label="failed"),),
        gate=Gate(floors={"roc_auc": 0.9}),
        answer=AnswerPolicy(
            labels=(Label("failure", "failure_probability", threshold=0.5),),
            risk=Risk("failure_probability", medium=0.2, high=0.6),
        ),
    )

A declaration that contradicts itself is refused when its module is imported, with an error that
lists the names it may use.
"""

from watchkeeper.training.declaration.errors import DeclarationError
from watchkeeper.training.declaration.fit import Balance, Outliers, Parameters
from watchkeeper.training.declaration.gate import Gate
from watchkeeper.training.declaration.head import Adopt, Head
from watchkeeper.training.declaration.model import Model
from watchkeeper.training.declaration.rows import Refresh, Source, Split
from watchkeeper.training.declaration.search import Choice, Integer, Real, Search

__all__ = [
    "Adopt",
    "Balance",
    "Choice",
    "DeclarationError",
    "Gate",
    "Head",
    "Integer",
    "Model",
    "Outliers",
    "Parameters",
    "Real",
    "Refresh",
    "Search",
    "Source",
    "Split",
]
