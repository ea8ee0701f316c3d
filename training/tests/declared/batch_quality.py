"""A model for tests whose rows are aggregates of other tables."""

from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from watchkeeper.core.answer import AnswerPolicy, Risk
from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import Gate, Head, Model, Refresh, Source

MODEL = Model(
    name="batch-quality",
    source=Source(
        query="SELECT f.batch_id, f.samples, f.mean_pressure, b.rejected"
        " FROM batch_features AS f JOIN batches AS b ON b.id = f.batch_id",
        id="batch_id",
        refresh=Refresh(
            table="batch_features",
            create="CREATE TABLE IF NOT EXISTS batch_features (batch_id INTEGER NOT NULL"
            " PRIMARY KEY, samples INTEGER NOT NULL, mean_pressure DOUBLE PRECISION NOT NULL)",
            statement="INSERT INTO batch_features (batch_id, samples, mean_pressure)"
            " SELECT b.id, COUNT(*), AVG(s.pressure) FROM batches AS b"
            " JOIN samples AS s ON s.batch_id = b.id"
            " LEFT JOIN batch_features AS f ON f.batch_id = b.id"
            " WHERE f.batch_id IS NULL GROUP BY b.id",
        ),
    ),
    columns=(Column("samples", "INT64"), Column("mean_pressure", "FP64", unit="bar")),
    heads=(
        Head(
            "rejection",
            features=lambda _: StandardScaler(),
            estimator=lambda _: LogisticRegression(),
            label="rejected",
        ),
    ),
    gate=Gate(floors={}),
    answer=AnswerPolicy(labels=(), risk=Risk("rejection", medium=0.2, high=0.6)),
)
