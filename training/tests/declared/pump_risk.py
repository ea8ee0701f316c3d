"""A model for tests: two heads, one of them unsupervised, and numeric columns only."""

from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.answer import AnswerPolicy, Label, Risk
from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import Balance, Gate, Head, Model, Source

MODEL = Model(
    name="pump-risk",
    source=Source("SELECT * FROM pump_readings", id="id"),
    columns=(
        Column("load", "FP64", unit="Nm", minimum=0.0),
        Column("shaft_speed", "FP64", unit="rpm"),
        Column("wear", "INT64", unit="min"),
    ),
    heads=(
        Head(
            "failure_probability",
            features=lambda _: StandardScaler(),
            estimator=lambda p: RandomForestClassifier(20, max_depth=8, random_state=p.seed),
            label="failed",
        ),
        Head(
            "anomaly",
            features=lambda _: StandardScaler(),
            estimator=lambda p: IsolationForest(n_estimators=20, random_state=p.seed),
            method="decision_function",
            tolerance=1e-5,
        ),
    ),
    gate=Gate(floors={"roc_auc": 0.7}),
    answer=AnswerPolicy(
        labels=(Label("anomaly_flag", "anomaly", threshold=0.0),),
        risk=Risk("failure_probability", medium=0.199, high=0.599),
    ),
    balance=Balance(ratio=0.2),
)
