"""Models for tests with the same columns: the state of a bearing, its life, both, and no truth."""

from sklearn.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.answer import AnswerPolicy, Label, Risk
from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import Gate, Head, Model, Parameters, Source

COLUMNS = (
    Column("vibration", "FP64", unit="mm/s", minimum=0.0),
    Column("temperature", "FP64", unit="K", minimum=200.0, maximum=500.0),
    Column("hours", "INT64", unit="h", minimum=0),
)
STATES = ("ok", "worn", "broken")


def scale(_: Parameters) -> StandardScaler:
    """Return the features."""
    return make_pipeline(StandardScaler())


def classifier(parameters: Parameters) -> RandomForestClassifier:
    """Return the estimator of the state."""
    return RandomForestClassifier(40, min_samples_leaf=5, random_state=parameters.seed)


def regressor(parameters: Parameters) -> RandomForestRegressor:
    """Return the estimator of the remaining life."""
    return RandomForestRegressor(40, min_samples_leaf=5, random_state=parameters.seed)


def isolation(parameters: Parameters) -> IsolationForest:
    """Return the estimator of how usual a reading is."""
    return IsolationForest(n_estimators=50, contamination=0.02, random_state=parameters.seed)


STATE = Model(
    name="bearing-state",
    source=Source("SELECT id, vibration, temperature, hours, state FROM bearings", id="id"),
    columns=COLUMNS,
    heads=(Head("state", scale, classifier, label="state", classes=STATES),),
    gate=Gate(floors={"balanced_accuracy": 0.6}, ceilings={"log_loss": 0.8}, margin=0.1),
)
LIFE = Model(
    name="bearing-life",
    source=Source("SELECT id, vibration, temperature, hours, life FROM bearings", id="id"),
    columns=COLUMNS,
    heads=(Head("life", scale, regressor, label="life", task="regression", interval=0.9),),
    gate=Gate(floors={"r2": 0.5}, ceilings={"mean_absolute_error": 400.0}, margin=0.3),
    answer=AnswerPolicy(risk=Risk("life", medium=500.0, high=2000.0)),
)
HEALTH = Model(
    name="bearing-health",
    source=Source("SELECT * FROM bearings", id="id"),
    columns=COLUMNS,
    heads=(*STATE.heads, *LIFE.heads),
    gate=Gate(
        floors={"balanced_accuracy": 0.6, "life.r2": 0.5},
        ceilings={"life.mean_absolute_error": 400.0},
        margin={"state": 0.1, "life": 0.5},
    ),
    answer=LIFE.answer,
)
UNUSUAL = Model(
    name="bearing-unusual",
    source=Source("SELECT id, vibration, temperature, hours FROM bearings", id="id"),
    columns=COLUMNS,
    heads=(Head("normality", scale, isolation),),
    gate=Gate(max_label_rate={"unusual": 0.1}),
    answer=AnswerPolicy((Label("unusual", "normality", threshold=-1e-6, side="below"),)),
)
