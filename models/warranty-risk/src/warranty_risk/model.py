"""The declaration: warranty claims and anomalies of vehicles, from data of their assembly."""

from typing import Annotated

import msgspec
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier

from watchkeeper.core.answer import AnswerPolicy, Label, Risk
from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import (
    Gate,
    Head,
    Integer,
    Model,
    Parameters,
    Refresh,
    Search,
    Source,
    Split,
)

COLUMNS = (
    Column("total_error_count", "INT64", minimum=0, maximum=100_000),
    Column("avg_cycle_time", "FP64", unit="s", minimum=0.0, maximum=86_400.0),
    Column("cycle_time_variance", "FP64", unit="s2", minimum=0.0, maximum=1e9),
    Column("rework_ratio", "FP64", minimum=0.0, maximum=1.0),
    Column("vendor_defect_ratio", "FP64", minimum=0.0, maximum=1.0),
    Column("avg_torque", "FP64", unit="Nm", minimum=0.0, maximum=2000.0),
    Column("torque_deviation", "FP64", unit="Nm", minimum=0.0, maximum=2000.0),
)

# Standard SQL for SQLite, PostgreSQL and MariaDB. Without "1e0 *" MariaDB would round a quotient of
# integers to four digits. A vehicle's features are those at the time of this statement: later
# reports of its stations change nothing, as they would be too late for a prediction. A vehicle
# without any report of a station waits. A vehicle without a vendor's lot has an empty
# vendor_defect_ratio, and training leaves it out.
FEATURES = Refresh(
    table="vehicle_features",
    create="""
CREATE TABLE IF NOT EXISTS vehicle_features (
    vehicle_id INTEGER NOT NULL PRIMARY KEY,
    completed DOUBLE PRECISION NOT NULL,
    total_error_count INTEGER NOT NULL,
    avg_cycle_time DOUBLE PRECISION NOT NULL,
    cycle_time_variance DOUBLE PRECISION NOT NULL,
    rework_ratio DOUBLE PRECISION NOT NULL,
    vendor_defect_ratio DOUBLE PRECISION,
    avg_torque DOUBLE PRECISION NOT NULL,
    torque_deviation DOUBLE PRECISION NOT NULL
)""",
    statement="""
INSERT INTO vehicle_features (
    vehicle_id, completed, total_error_count, avg_cycle_time, cycle_time_variance, rework_ratio,
    vendor_defect_ratio, avg_torque, torque_deviation
)
WITH fresh AS (
    SELECT vehicles.id, vehicles.completed
    FROM vehicles
    LEFT JOIN vehicle_features ON vehicle_features.vehicle_id = vehicles.id
    WHERE vehicles.completed IS NOT NULL AND vehicle_features.vehicle_id IS NULL
),
visits AS (
    SELECT
        fresh.id AS vehicle_id,
        SUM(stations.errors) AS total_error_count,
        AVG(stations.cycle_time) AS avg_cycle_time,
        AVG(1e0 * stations.rework) AS rework_ratio,
        AVG(stations.torque) AS avg_torque,
        AVG(ABS(stations.torque - stations.specified_torque)) AS torque_deviation
    FROM fresh JOIN stations ON stations.vehicle_id = fresh.id
    GROUP BY fresh.id
),
spread AS (
    SELECT
        visits.vehicle_id,
        AVG(
            (stations.cycle_time - visits.avg_cycle_time)
            * (stations.cycle_time - visits.avg_cycle_time)
        ) AS cycle_time_variance
    FROM visits JOIN stations ON stations.vehicle_id = visits.vehicle_id
    GROUP BY visits.vehicle_id
),
lots AS (
    SELECT
        fresh.id AS vehicle_id,
        1e0 * SUM(vendors.defects) / NULLIF(SUM(vendors.parts), 0) AS vendor_defect_ratio
    FROM fresh JOIN vendors ON vendors.vehicle_id = fresh.id
    GROUP BY fresh.id
)
SELECT
    fresh.id, fresh.completed, visits.total_error_count, visits.avg_cycle_time,
    spread.cycle_time_variance, visits.rework_ratio, lots.vendor_defect_ratio,
    visits.avg_torque, visits.torque_deviation
FROM fresh
JOIN visits ON visits.vehicle_id = fresh.id
JOIN spread ON spread.vehicle_id = fresh.id
LEFT JOIN lots ON lots.vehicle_id = fresh.id""",
)


class ForestParameters(Parameters, frozen=True):
    """Parameters of the forest: number of trees, maximum depth, minimum rows in a leaf.

    Of the isolation forest: number of trees, and the share of vehicles that are anomalies.
    """

    trees: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 100
    depth: Annotated[int, msgspec.Meta(ge=1, le=40)] = 10
    leaf: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    isolating_trees: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 100
    anomalies: Annotated[float, msgspec.Meta(gt=0.0, le=0.5)] = 0.02


def features(_: ForestParameters) -> ColumnTransformer:
    """Pass all columns through: the aggregates are the features."""
    return ColumnTransformer([("all", "passthrough", [column.name for column in COLUMNS])])


def forest(parameters: ForestParameters) -> RandomForestClassifier:
    """Return the forest for claims; one core, because a run shares its machine."""
    return RandomForestClassifier(
        n_estimators=parameters.trees,
        max_depth=parameters.depth,
        min_samples_leaf=parameters.leaf,
        random_state=parameters.seed,
        n_jobs=1,
    )


def isolation(parameters: ForestParameters) -> IsolationForest:
    """Return the isolation forest; the share of anomalies sets the zero of its score."""
    return IsolationForest(
        n_estimators=parameters.isolating_trees,
        contamination=parameters.anomalies,
        random_state=parameters.seed,
        n_jobs=1,
    )


MODEL = Model(
    name="warranty-risk",
    source=Source(
        query="SELECT features.vehicle_id, features.total_error_count, features.avg_cycle_time,"
        " features.cycle_time_variance, features.rework_ratio, features.vendor_defect_ratio,"
        " features.avg_torque, features.torque_deviation, vehicles.warranty_claim"
        " FROM vehicle_features AS features JOIN vehicles ON vehicles.id = features.vehicle_id",
        id="vehicle_id",
        refresh=FEATURES,
    ),
    columns=COLUMNS,
    parameters=ForestParameters,
    split=Split(block_rows=500),
    heads=(
        Head(
            score="warranty_probability",
            features=features,
            estimator=forest,
            label="warranty_claim",
        ),
        Head(
            score="normality",
            features=features,
            estimator=isolation,
            method="decision_function",
        ),
    ),
    # Few trials: a run of the demo should take seconds.
    search=Search(
        space={"leaf": Integer(2, 50, log=True), "depth": Integer(4, 16)},
        trials=4,
        cheaper={"trees": 20},
    ),
    gate=Gate(
        floors={"roc_auc": 0.75, "average_precision": 0.25},
        margin=0.05,
        max_label_rate={"anomaly_flag": 0.1},
    ),
    # The isolation forest's score is negative for anomalies. The training row that sets the zero
    # may have a score of exactly 0, where a rounding error would decide, so the threshold is a
    # little lower.
    answer=AnswerPolicy(
        labels=(Label("anomaly_flag", "normality", threshold=-1e-6, side="below"),),
        risk=Risk("warranty_probability", medium=0.149, high=0.399),
        hidden=("normality",),
    ),
)
