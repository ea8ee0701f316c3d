"""The parts of a declaration that depend on its truths: estimators, heads, gate and answer."""

from collections.abc import Sequence
from typing import Final

from watchkeeper.training.new.adopted import AdoptedVersion
from watchkeeper.training.new.code import WIDTH, comment, literal
from watchkeeper.training.new.decisions import Truth
from watchkeeper.training.new.target import Anomaly

# The function that returns an estimator, by its class.
FUNCTIONS: Final = {
    "RandomForestClassifier": "classifier",
    "RandomForestRegressor": "regressor",
    "IsolationForest": "isolation",
}
FUNCTION: Final = '''\
def {function}(parameters: ForestParameters) -> {estimator}:
    """Return the estimator."""
    return {estimator}(
        n_estimators=parameters.trees,
{arguments}        random_state=parameters.seed,
        n_jobs=1,
    )
'''
# What a user may set beside the number of trees: its argument, type, range and value.
SETTINGS: Final = {
    "depth": ("max_depth", "int", "ge=1, le=40", "12"),
    "leaf": ("min_samples_leaf", "int", "ge=1, le=1000", "2"),
    "unusual": ("contamination", "float", "gt=0, le=0.5", "0.02"),
}


def parts(truths: Sequence[Truth], adopted: AdoptedVersion | None) -> dict[str, str]:
    """Return the parts of the template."""
    truths = truths or [Truth("", Anomaly())]
    estimators = sorted({truth.target.estimator for truth in truths})
    settings = {name: SETTINGS[name] for truth in truths for name in truth.target.settings}
    answer = _answer(truths)
    names = ", ".join(name for name in ("AnswerPolicy", "Label", "Risk") if f"{name}(" in answer)
    imported = f"from watchkeeper.core.answer import {names}\n"
    return {
        "estimators": ", ".join(estimators),
        "functions": "\n\n".join(
            FUNCTION.format(
                function=FUNCTIONS[each],
                estimator=each,
                arguments="".join(
                    f"        {argument}=parameters.{name},\n"
                    for name, (argument, *_) in settings.items()
                ),
            )
            for each in estimators
        ),
        "settings": "".join(
            f"    {name}: Annotated[{kind}, msgspec.Meta({limits})] = {value}\n"
            for name, (_, kind, limits, value) in settings.items()
        ),
        "answer_import": imported if answer else "",
        "heads": _heads([_head(truth, adopted) for truth in truths]),
        "gate": _gate(truths),
        "answer": answer,
        "target_note": "".join(
            f"{line}\n"
            for truth in truths
            for line in comment(truth.target.note(truth.name), "# ", "# ")
        ),
    }


def _head(truth: Truth, adopted: AdoptedVersion | None) -> list[str]:
    """Return the arguments of a head."""
    score, more = truth.target.head(truth.name)
    source = ["features=features", f"estimator={FUNCTIONS[truth.target.estimator]}"]
    if adopted is not None:
        source = [f"adopt=Adopt({literal(adopted.name)})"]
    label = [f"label={literal(truth.name)}"] if truth.name else []
    return [literal(score), *source, *label, *([more] if more else [])]


def _heads(heads: list[list[str]]) -> str:
    """Return the argument ``heads`` for the arguments of each head."""
    short = [f"Head({', '.join(words)})" for words in heads]
    if len(heads) == 1 and len(line := f"    heads=({short[0]},),") <= WIDTH:
        return line
    lines = []
    for words, head in zip(heads, short, strict=True):
        if len(line := f"        {head},\n") <= WIDTH + 1:
            lines.append(line)
            continue
        inner = "".join(f"            {part},\n" for word in words for part in _split(word))
        lines.append(f"        Head(\n{inner}        ),\n")
    return f"    heads=(\n{''.join(lines)}    ),"


def _split(word: str) -> list[str]:
    """Split arguments that were given together, but not the items of a tuple."""
    return [word] if "(" in word else word.split(", ")


def _gate(truths: Sequence[Truth]) -> str:
    """Return the argument ``gate``; metrics of other heads than the first begin with a score."""
    limits: list[str] = []
    for truth in truths:
        name, limit = truth.target.limit
        prefix = f"{truth.target.head(truth.name)[0]}." if limits else ""
        limits.append(f"{literal(prefix + name)}: {limit}")
    kind = truths[0].target.limits
    if len(line := f"    gate=Gate({kind}={{{', '.join(limits)}}}),") <= WIDTH:
        return line
    if len(line := f"        {kind}={{{', '.join(limits)}}}") <= WIDTH:
        return f"    gate=Gate(\n{line}\n    ),"
    inner = "".join(f"            {limit},\n" for limit in limits)
    return f"    gate=Gate(\n        {kind}={{\n{inner}        }}\n    ),"


def _answer(truths: Sequence[Truth]) -> str:
    """Return the argument ``answer`` with its line break: all labels, and the first risk level."""
    found = [x for x in (truth.target.answer(truth.name) for truth in truths) if x is not None]
    if not found:
        return ""
    labels = f"({found[0].label},)"
    if len(found) > 1:
        labels = "(\n" + "".join(f"            {x.label},\n" for x in found) + "        )"
    return "".join(
        [
            *(f"{line}\n" for x in found for line in comment(x.note, "    # ", "    # ")),
            "    answer=AnswerPolicy(\n",
            f"        labels={labels},\n",
            f"        risk={found[0].risk},\n" if found[0].risk else "",
            "    ),\n",
        ]
    )
