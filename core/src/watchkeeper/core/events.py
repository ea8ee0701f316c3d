"""Events: decisions with time, reason and the numbers that they are based on.

Each kind of event is a type of details, and its tag is the kind. Writers create the type, readers
match on it::

    event = Event(id, "pump-failure", 4, time.time(), "no check has failed", Promoted(replaces=3))
    match event.details:
        case Promoted(replaces=old): ...
        case RolledBack(to=old): ...

The ledger stores kind and details in two columns. Events of an earlier or a later release are read
as far as possible: missing fields have their defaults, unknown fields are skipped, and details of
an unknown kind or form are :class:`Unknown`. For the same reason a policy in an event is a dict of
its values: a policy type rejects the values that another release has added or removed.
"""

from typing import Any, Final, Literal

import msgspec

from watchkeeper.core.gate_report import GateReport
from watchkeeper.core.sample import Sample

FORMAT: Final = 1  # raised when a field changes its meaning

Verdict = Literal["pass", "fail", "inconclusive"]
# What an episode is about when it opens: the data, or the error on labelled rows.
EpisodeCause = Literal["data", "concept"]
EpisodeState = Literal[
    "waiting-for-labels", "training", "cool-down", "promoted", "given-up", "clean"
]


class Details(msgspec.Struct, frozen=True, tag_field="kind", kw_only=True):
    """The base of all details; ``format`` is the version of their form."""

    format: int = FORMAT


class RolloutStarted(Details, frozen=True, tag="begun", kw_only=True):
    """The rollout of a version has started. It replaces ``stable``; None if no version serves.

    ``digest`` identifies the content of the version; "" if it is not known.
    """

    stable: int | None
    digest: str = ""


class StepFinished(Details, frozen=True, tag="step", kw_only=True):
    """A canary step has ended.

    The version had ``percent`` of the traffic from ``since`` until before ``until``, in seconds
    since 1970. ``observations`` contains the numbers of each check by its name, ``policy`` the
    values of the rollout policy in force.
    """

    percent: int
    since: float
    until: float
    verdict: Verdict
    observations: dict[str, Any]
    policy: dict[str, Any]


class Promoted(Details, frozen=True, tag="promoted", kw_only=True):
    """A version has become production. It replaces the version ``replaces``, if any.

    ``digest`` identifies the content of the version; "" if it is not known.
    """

    replaces: int | None = None
    digest: str = ""


class Watched(Details, frozen=True, tag="watched", kw_only=True):
    """The watch of a promoted version has ended.

    ``observations`` contains the numbers of each check by its name.
    """

    verdict: Verdict
    observations: dict[str, Any] = {}


class RolledBack(Details, frozen=True, tag="rolled-back", kw_only=True):
    """A version has lost its traffic, ``percent`` of all; it goes to the version ``to``."""

    to: int | None
    percent: int


class NumberReused(Details, frozen=True, tag="number-reused", kw_only=True):
    """The registry had other content under a number that was used before: it got a new number.

    The number ``reused`` stands for the content ``digest``. The version of this event is the new
    number of the content ``other_digest``.
    """

    reused: int
    digest: str
    other_digest: str


RoutePart = Literal["weights", "state"]


class RouteRepaired(Details, frozen=True, tag="route-repaired", kw_only=True):
    """Somebody has changed the model's route. Its "weights" or its "state" were written again.

    ``changed_by`` says who changed it and when, as far as the platform knows. Repeated changes of
    the same part have at most one event in ten minutes.
    """

    part: RoutePart
    changed_by: str


class ModelRemoved(Details, frozen=True, tag="model-removed", kw_only=True):
    """The installation no longer has the model: its route is deleted, its versions are retired.

    ``versions`` were served until then.
    """

    versions: tuple[int, ...]


class ProductionUnregistered(Details, frozen=True, tag="production-unregistered", kw_only=True):
    """The version in production is no longer named by the registry. It keeps serving.

    ``lost`` is what is gone: the "version", or only its "alias".
    """

    lost: Literal["version", "alias"]


class ProductionRegistered(Details, frozen=True, tag="production-registered", kw_only=True):
    """The registry names the version in production again."""


class EpisodeChanged(Details, frozen=True, tag="episode", kw_only=True):
    """An episode of drift has changed its state.

    ``attempt`` is the number of training runs so far, ``run`` the name of the last one, ``onset``
    the record time of the first drifted row, in seconds since 1970. ``cause`` says whether the data
    or the error on labelled rows has opened the episode. ``policy`` contains the values of the
    drift policy in force.
    """

    episode: str
    state: EpisodeState
    attempt: int
    run: str | None
    onset: float
    policy: dict[str, Any]
    cause: EpisodeCause = "data"


class ConceptDrifted(Details, frozen=True, tag="concept-drift", kw_only=True):
    """The live loss of a head has risen above what the gate measured, during an ``episode``.

    ``label`` is the name of the truth. ``loss`` is the mean over ``rows`` rows from ``since`` on,
    in seconds since 1970, of which ``labelled`` have a label; ``low`` and ``high`` are the ends of
    its 95 % interval. ``baseline`` is the gate's mean loss, ``limit`` the largest one that counts
    as no drift. ``policy`` contains the values of the drift policy in force.
    """

    episode: str
    label: str
    loss: float
    low: float | None
    high: float | None
    baseline: float
    limit: float
    rows: int
    labelled: int
    since: float
    policy: dict[str, Any]


class SensorBroken(Details, frozen=True, tag="sensor-broken", kw_only=True):
    """A request column is missing or stuck.

    ``since`` is a record time, in seconds since 1970.
    """

    column: str
    since: float


class WatchFailed(Details, frozen=True, tag="watch-failed", kw_only=True):
    """The drift watch of a version has failed several times in a row: no window is examined.

    ``error`` is the last error, ``since`` when the first turn failed, in seconds since 1970.
    """

    error: str
    since: float


class WatchRecovered(Details, frozen=True, tag="watch-recovered", kw_only=True):
    """The drift watch of a version works again after a ``watch-failed``."""


class SpoolAbandoned(Details, frozen=True, tag="spool-abandoned", kw_only=True):
    """The sidecar of a spool is silent, so the spool is closed.

    The fields are those of :class:`watchkeeper.ledger.spools.SpoolState`.
    """

    id: str
    model: str
    version: int
    shipped_until: float
    lost: int = 0
    closed: bool = False
    seen: float = 0.0
    digest: str | None = None


class SpoolLost(Details, frozen=True, tag="spool-lost", kw_only=True):
    """Records of an abandoned spool may be missing in the ledger.

    They lie between ``since`` and ``until``; ``heard`` is the last write of the sidecar; all in
    seconds since 1970. ``likely_at_most`` estimates their number from the rate of requests.
    """

    spool: str
    since: float
    until: float
    heard: float
    requests_per_second: float
    likely_at_most: int | None


class SpoolFound(Details, frozen=True, tag="spool-found", kw_only=True):
    """The sidecar of an abandoned spool has written again, at ``seen``, seconds since 1970."""

    spool: str
    seen: float


class RowsRemoved(Details, frozen=True, tag="retention", kw_only=True):
    """The numbers of rows that retention has removed on one ``day`` (ISO 8601, UTC).

    ``policy`` contains the values of the retention policy in force.
    """

    day: str
    predictions: int
    superseded: int
    labels: int
    gaps: int
    policy: dict[str, Any]


class SubjectForgotten(Details, frozen=True, tag="forgotten", kw_only=True):
    """Everything about a subject is deleted, as ``requested`` at that time (seconds since 1970)."""

    requested: float
    predictions: int
    superseded: int
    labels: int


class LabelContradicted(Details, frozen=True, tag="label-contradicted", kw_only=True):
    """A row has received a second label of the same name with another value."""

    prediction: str
    row: int
    client: str
    name: str = ""


class TrainingData(msgspec.Struct, frozen=True):
    """The data of a training run, see :class:`watchkeeper.core.version.Lineage`."""

    data_hash: str
    rows: int
    labelled_rows: int
    reference: str
    sample: Sample | None = None


class GateDecided(Details, frozen=True, kw_only=True):
    """The gate has judged the version of a training run.

    ``mlflow_run`` is the id of MLflow's run, ``report`` the report of the gate, ``digest``
    identifies the content of the version; "" if it is not known.
    """

    run: str
    trigger: str
    code_version: str
    data: TrainingData
    mlflow_run: str
    episode: str | None = None
    replaces: int | None = None
    report: GateReport | None = None
    digest: str = ""


class GatePassed(GateDecided, frozen=True, tag="gate-passed", kw_only=True):
    """The version of a training run has passed the gate and becomes a candidate."""


class GateRejected(GateDecided, frozen=True, tag="gate-rejected", kw_only=True):
    """The version of a training run has failed the gate. It is registered and does not serve."""


class RunFailed(Details, frozen=True, tag="run-failed", kw_only=True):
    """A training run has failed: it has registered no version. The reason is its last message.

    ``log`` is where its log is: a file, or the command that prints it.
    """

    run: str
    log: str


class Unknown(Details, frozen=True, tag="unknown", kw_only=True):
    """Details of a kind or in a form that this release does not know."""

    another_kind: str
    values: dict[str, Any]


EventDetails = (
    RolloutStarted
    | StepFinished
    | Promoted
    | Watched
    | RolledBack
    | NumberReused
    | RouteRepaired
    | ModelRemoved
    | ProductionUnregistered
    | ProductionRegistered
    | EpisodeChanged
    | ConceptDrifted
    | SensorBroken
    | WatchFailed
    | WatchRecovered
    | SpoolAbandoned
    | SpoolLost
    | SpoolFound
    | RowsRemoved
    | SubjectForgotten
    | LabelContradicted
    | GatePassed
    | GateRejected
    | RunFailed
    | Unknown
)


class Event(msgspec.Struct, frozen=True):
    """One decision about a model.

    Attributes:
        id: Computed from what the event is about, never random. An event that is emitted twice is
            stored once, so a writer that is not sure emits it again.
        model: The model.
        version: The version that the event is about; None if it is about the whole model.
        time: When it was decided, in seconds since 1970.
        reason: The reason, for people.
        details: The numbers and names, by the kind of the event.
    """

    id: str
    model: str
    version: int | None
    time: float
    reason: str
    details: EventDetails

    @property
    def kind(self) -> str:
        """The kind of the event, for example "promoted"."""
        return kind_of(self.details)


def kind_of(details: EventDetails | type[EventDetails]) -> str:
    """Return the kind of details or of a type of details, for example "promoted"."""
    if isinstance(details, Unknown):
        return details.another_kind
    return str(details.__struct_config__.tag)


def dump_details(details: EventDetails) -> dict[str, Any]:
    """Return details as plain values without the kind, for JSON."""
    if isinstance(details, Unknown):
        return details.values
    values: dict[str, Any] = msgspec.to_builtins(details)
    del values["kind"]
    return values


def parse_details(kind: str, values: dict[str, Any]) -> EventDetails:
    """Return details from their kind and values; :class:`Unknown` if this release cannot."""
    try:
        parsed: EventDetails = msgspec.convert({**values, "kind": kind}, EventDetails)
    except msgspec.ValidationError:
        return Unknown(another_kind=kind, values=values)
    return parsed


class _EventValues(msgspec.Struct, frozen=True):
    """The form of :func:`as_json`."""

    id: str
    model: str
    version: int | None
    kind: str
    time: float
    reason: str
    details: dict[str, Any]


def as_json(event: Event) -> dict[str, Any]:
    """Return an event as plain values: the form that commands print with ``--json``."""
    return {
        "id": event.id,
        "model": event.model,
        "version": event.version,
        "kind": event.kind,
        "time": event.time,
        "reason": event.reason,
        "details": dump_details(event.details),
    }


def parse_event(values: object) -> Event:
    """Return an event from the values of :func:`as_json`.

    Details that this release cannot read are :class:`Unknown`; ``as_json`` writes them unchanged.

    Raises:
        msgspec.ValidationError: the values are not those of an event.
    """
    read = msgspec.convert(values, _EventValues)
    return Event(
        id=read.id,
        model=read.model,
        version=read.version,
        time=read.time,
        reason=read.reason,
        details=parse_details(read.kind, read.details),
    )
