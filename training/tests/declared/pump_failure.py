"""A model for tests: failures of pumps, with categories, products of columns and a search."""

from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import OrdinalEncoder, PolynomialFeatures

from watchkeeper.core.answer import AnswerPolicy, Label, Risk
from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import (
    Balance,
    Gate,
    Head,
    Integer,
    Model,
    Outliers,
    Parameters,
    Search,
    Source,
    Split,
)

GRADES = ("L", "M", "H")


class PumpParameters(Parameters, frozen=True):
    """The size of the forest."""

    trees: int = 100
    depth: int = 12
    leaf: int = 2


def features(_: PumpParameters) -> ColumnTransformer:
    """Products of columns, and the principal axes of the two temperatures."""

    def product() -> PolynomialFeatures:
        return PolynomialFeatures(degree=2, interaction_only=True, include_bias=False)

    temperatures = ["inlet_temperature", "outlet_temperature"]
    return ColumnTransformer(
        [
            ("grade", OrdinalEncoder(categories=[list(GRADES)]), ["grade"]),
            ("power", product(), ["shaft_speed", "load"]),
            ("strain", product(), ["wear", "load"]),
            ("temperatures", "passthrough", temperatures),
            ("cooling", PCA(n_components=2), temperatures),
        ]
    )


def forest(parameters: PumpParameters) -> RandomForestClassifier:
    """Return the forest."""
    return RandomForestClassifier(
        n_estimators=parameters.trees,
        max_depth=parameters.depth,
        min_samples_leaf=parameters.leaf,
        random_state=parameters.seed,
        n_jobs=1,
    )


MODEL = Model(
    name="pump-failure",
    source=Source(
        query="SELECT id, grade, inlet_temperature, outlet_temperature, shaft_speed, load, wear,"
        " failed FROM pump_readings",
        id="id",
    ),
    columns=(
        Column("grade", "BYTES", categories=GRADES),
        Column("inlet_temperature", "FP64", unit="K", minimum=250.0, maximum=350.0),
        Column("outlet_temperature", "FP64", unit="K", minimum=250.0, maximum=400.0),
        Column("shaft_speed", "FP64", unit="rpm", minimum=0.0, maximum=10_000.0),
        Column("load", "FP64", unit="Nm", minimum=0.0, maximum=300.0),
        Column("wear", "FP64", unit="min", minimum=0.0, maximum=1000.0),
    ),
    parameters=PumpParameters,
    split=Split(block_rows=500),
    heads=(Head("failure_probability", features=features, estimator=forest, label="failed"),),
    outliers=Outliers(factor=3.0),
    balance=Balance(ratio=0.2),
    search=Search(space={"leaf": Integer(1, 8)}, trials=3, cheaper={"trees": 20}),
    gate=Gate(floors={"roc_auc": 0.9, "average_precision": 0.4}, margin=0.05),
    answer=AnswerPolicy(
        labels=(Label("failure", "failure_probability", threshold=0.499),),
        risk=Risk("failure_probability", medium=0.199, high=0.599),
    ),
)
