"""The parts of a declaration that depend on its truths: estimators, heads, gate and answer."""

from collections.abc import Sequence
from typing import Final

from watchkeeper.training.new.adopted import AdoptedVersion
from watchkeeper.training.new.code import WIDTH, comment, literal
from watchkeeper.training.new.decisions import Truth

# The function that returns an estimator, by its class.
FUNCTIONS: Final = {
    "RandomForestClassifier": "classifier",
    "RandomForestRegressor": "regressor",
}
FUNCTION: Final = '''\
def {function}(parameters: ForestParameters) -> {estimator}:
    """Return the estimator."""
    return {estimator}(
        n_estimators=parameters.trees,
        max_depth=parameters.depth,
        min_samples_leaf=parameters.leaf,
        random_state=parameters.seed,
        n_jobs=1,
    )
'''


def parts(truths: Sequence[Truth], adopted: AdoptedVersion | None) -> dict[str, str]:
    """Return the parts of the template."""
    estimators = sorted({truth.target.estimator for truth in truths})
    answer = _answer(truths)
    imported = "from watchkeeper.core.answer import AnswerPolicy, Label, Risk\n"
    return {
        "estimators": ", ".join(estimators),
        "functions": "\n\n".join(
            FUNCTION.format(function=FUNCTIONS[each], estimator=each) for each in estimators
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
    return [literal(score), *source, f"label={literal(truth.name)}", *([more] if more else [])]


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
    floors: list[str] = []
    for truth in truths:
        metric, floor = truth.target.floor
        prefix = f"{truth.target.head(truth.name)[0]}." if floors else ""
        floors.append(f"{literal(prefix + metric)}: {floor}")
    if len(line := f"    gate=Gate(floors={{{', '.join(floors)}}}),") <= WIDTH:
        return line
    if len(line := f"        floors={{{', '.join(floors)}}}") <= WIDTH:
        return f"    gate=Gate(\n{line}\n    ),"
    inner = "".join(f"            {floor},\n" for floor in floors)
    return f"    gate=Gate(\n        floors={{\n{inner}        }}\n    ),"


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
            f"        risk={found[0].risk},\n",
            "    ),\n",
        ]
    )
