"""The tables. A change needs a migration that only adds; a later release removes what is unused."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
)

metadata = MetaData()

# Times are seconds since 1970 in double precision: the same on all databases.
Seconds = Float(53)

predictions = Table(
    "predictions",
    metadata,
    Column("id", String(32), primary_key=True),  # the request part of the prediction id
    Column("attempt", Integer, nullable=False),
    Column("model", String(30), nullable=False),
    Column("version", Integer, nullable=False),
    Column("protocol", String(8), nullable=False),
    Column("client", String(255), nullable=False),
    Column("time", Seconds, nullable=False),
    Column("latency", Float(53), nullable=False),
    Column("status", String(32), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("outputs", JSON, nullable=False),
    Column("error", Text),
    Column("flags", JSON, nullable=False),
    Column("subject", String(255), nullable=False, server_default=""),
    Column("synthetic", Boolean, nullable=False, server_default=false()),
    Index("predictions_by_version", "model", "version", "time"),
    Index("predictions_by_time", "model", "time"),
    Index("predictions_by_subject", "model", "subject"),
)

# Attempts whose result the client did not see, because the gateway has retried the request.
superseded = Table(
    "superseded",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("model", String(30), nullable=False),
    Column("protocol", String(8), nullable=False),
    Column("client", String(255), nullable=False),
    Column("time", Seconds, nullable=False),
    Column("latency", Float(53), nullable=False),
    Column("status", String(32), nullable=False),
    Column("error", Text),
    Column("subject", String(255), nullable=False),
    Index("superseded_by_version", "model", "version", "time"),
    Index("superseded_by_time", "model", "time"),
    Index("superseded_by_subject", "model", "subject"),
)

labels = Table(
    "labels",
    metadata,
    Column("prediction", String(32), primary_key=True),
    Column("row", Integer, primary_key=True),
    # Of the truth. It is empty in labels of clients and of releases that name none.
    Column("name", String(63), primary_key=True, server_default=""),
    Column("model", String(30), nullable=False),
    Column("version", Integer, nullable=False),
    Column("value", Float(53), nullable=False),
    Column("time", Seconds, nullable=False),
    Column("client", String(255), nullable=False),
    Index("labels_by_version", "model", "version", "time"),
    Index("labels_by_time", "model", "time"),
)

spools = Table(
    "spools",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(30), nullable=False),
    Column("version", Integer, nullable=False),
    Column("shipped_until", Seconds, nullable=False),  # every record with an earlier time is stored
    Column("lost", BigInteger, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("seen", Seconds, nullable=False, server_default="0"),  # when its sidecar last wrote
    Column("digest", String(64)),  # the content of the version; NULL if it is not known
)

# Requests without a record, by the place of the line in the spool that reports them.
gaps = Table(
    "gaps",
    metadata,
    Column("spool", String(32), primary_key=True),
    Column("segment", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("model", String(30), nullable=False),
    Column("version", Integer, nullable=False),
    Column(
        "kind", String(8), nullable=False
    ),  # lost: the spool was full; shed: the server was overloaded
    Column("protocol", String(8), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("since", Seconds, nullable=False),
    Column("until", Seconds, nullable=False),
    Index("gaps_by_model", "model", "since"),
)

# Requests of people to delete a subject. The subject is removed when the request is finished; the
# digest recognizes records that arrive later.
deletions = Table(
    "deletions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(30), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("requested", Seconds, nullable=False),
    Column("finished", Seconds),
    Column("predictions", BigInteger, nullable=False),
    Column("superseded", BigInteger, nullable=False),
    Column("labels", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False, server_default=""),
    Index("deletions_by_model", "model", "finished"),
    Index("deletions_by_digest", "model", "digest"),
)

# Request ids of forgotten subjects: a label that arrives later does not name its subject.
forgotten = Table(
    "forgotten",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(30), nullable=False),
    Column("time", Seconds, nullable=False),  # when it was deleted
    Index("forgotten_by_time", "model", "time"),
)

# The numbers of rows that retention has removed on a day, until the event of the day is written.
removals = Table(
    "removals",
    metadata,
    Column("model", String(30), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("predictions", BigInteger, nullable=False),
    Column("superseded", BigInteger, nullable=False),
    Column("labels", BigInteger, nullable=False),
    Column("gaps", BigInteger, nullable=False),
)

drift_reports = Table(
    "drift_reports",
    metadata,
    Column("model", String(30), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("window_end", Seconds, primary_key=True),
    Column("window_start", Seconds, nullable=False),
    Column("drifted", Boolean, nullable=False),
    Column("report", JSON, nullable=False),
)

# The blocks of rows whose losses were judged, for each truth of a version. The loss is NULL if the
# block was skipped.
concept_blocks = Table(
    "concept_blocks",
    metadata,
    Column("model", String(30), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("name", String(63), primary_key=True),  # of the truth
    Column("until", Seconds, primary_key=True),  # the record time of its last row
    Column("since", Seconds, nullable=False),  # that of its first row
    Column("rows", Integer, nullable=False),
    Column("labelled", Integer, nullable=False),
    Column("loss", Float(53)),
    Column("skipped", String(255), nullable=False),  # why; empty if it was judged
)

episodes = Table(
    "episodes",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("model", String(30), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(24), nullable=False),
    Column("onset", Seconds, nullable=False),
    Column("opened", Seconds, nullable=False),
    Column("changed", Seconds, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("cause", String(24), nullable=False, server_default="data"),
    Index("episodes_by_model", "model", "opened"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run", String(63), primary_key=True),  # also the name of the Job
    Column("episode", String(80)),
    Column("model", String(30), nullable=False),
    Column("trigger", String(255), nullable=False),
    Column("time", Seconds, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", String(160), primary_key=True),
    Column("model", String(30), nullable=False),
    Column("version", Integer),
    Column("kind", String(40), nullable=False),
    Column("time", Seconds, nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Index("events_by_model", "model", "time"),
    Index("events_by_kind", "model", "kind", "time"),
)
