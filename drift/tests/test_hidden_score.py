"""A version with two scores, one of which is hidden: the watch compares both."""

from pathlib import Path

import msgspec
import numpy as np
from pump import Rows, make_version, predictions, rows

from watchkeeper.core.answer import AnswerPolicy, Label, Risk
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.version import BASELINE, seal
from watchkeeper.drift.examine import examine
from watchkeeper.drift.reference_reader import read_reference
from watchkeeper.drift.window import Window
from watchkeeper.ledger.observations import Observation

POLICY = DriftPolicy()


def with_normality(count: int, seed: int, mean: float = 0.1) -> Rows:
    normal = np.random.default_rng(seed).normal(mean, 0.05, count)
    return {**rows(count, seed), "normality": normal.tolist()}


def window(data: Rows) -> Window:
    requests = predictions(data)
    observed = [
        Observation(
            **{
                name: getattr(request, name)
                for name in Observation.__struct_fields__
                if name not in ("outputs", "error")
            },
            outputs={**request.outputs, "normality": [normality]},
        )
        for request, normality in zip(requests, data["normality"], strict=True)
    ]
    return Window(observed, observed[0].time, observed[-1].time)


def test_a_shift_of_a_hidden_score_is_a_drift(tmp_path: Path) -> None:
    reference = with_normality(3000, seed=1)
    manifest = make_version(tmp_path / "version", reference)
    baseline = msgspec.json.decode((tmp_path / "version" / BASELINE).read_bytes())
    baseline["normality"] = {"mean": 0.1, "std": 0.05}
    (tmp_path / "version" / BASELINE).write_bytes(msgspec.json.encode(baseline))
    answer = AnswerPolicy(
        (Label("odd", "normality", threshold=0.0, side="below"),),
        Risk("score", 0.3, 0.7),
        hidden=("normality",),
    )
    heads = (*manifest.heads, Head("normality", "normality.skops", "decision_function"))
    changed = msgspec.structs.replace(manifest, heads=heads, answer=answer)
    manifest = seal(tmp_path / "version", changed)
    loaded = read_reference(tmp_path / "version", manifest, POLICY)
    calm = examine(window(with_normality(POLICY.window, seed=2)), loaded, POLICY, None)
    assert calm.verdict == "clean", calm.reason
    moved = examine(window(with_normality(POLICY.window, seed=2, mean=0.0)), loaded, POLICY, None)
    assert (moved.verdict, moved.reason) == ("drifted", "drift of normality")
