"""Compare every answer with what its version predicts offline for the same row."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.demo.messages import Answer
from watchkeeper.demo.system import SystemUnavailableError
from watchkeeper.demo.watchdog import LIMIT_SECONDS

TOLERANCE: Final = 1e-6  # absolute, for scores; every other output must be equal


def read_answers(files: Iterable[Path]) -> list[Answer]:
    """Read the answers that the senders have written."""
    decoder = msgspec.json.Decoder(Answer)
    answers: list[Answer] = []
    for file in files:
        with file.open("rb") as lines:
            answers += map(decoder.decode, lines)
    return answers


async def count_wrong_answers(
    answers: list[Answer], model: str, mlflow: str, folder: Path
) -> Counter[str]:
    """Count by protocol the answers that differ from the offline prediction of their version.

    Args:
        answers: the answers.
        model: the model.
        mlflow: the URL of the registry.
        folder: where to write rows and predictions.

    Raises:
        SystemUnavailableError: the offline prediction failed.
    """
    rows, predictions = folder / "rows.json", folder / "offline.json"
    await asyncio.to_thread(rows.write_bytes, rows_by_version(answers))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "watchkeeper.training.offline", model, str(rows), str(predictions)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow},
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise SystemUnavailableError(
            f"the offline prediction of {model}'s versions failed: {output.decode()[-1500:]}"
        )
    wrong = differing_answers(answers, await asyncio.to_thread(predictions.read_bytes))
    return Counter(answer.protocol for answer in wrong)


def rows_by_version(answers: Iterable[Answer]) -> bytes:
    """Return the rows of the answers as JSON: version → column → values."""
    return msgspec.json.encode(
        {
            version: {name: [answer.inputs[name] for answer in group] for name in group[0].inputs}
            for version, group in _by_version(answers).items()
        }
    )


def differing_answers(answers: Iterable[Answer], predictions: bytes) -> list[Answer]:
    """Return the answers that differ from ``predictions``.

    ``predictions`` is JSON: version → output → values, in the order of :func:`rows_by_version`.
    """
    offline = msgspec.json.decode(predictions, type=dict[int, dict[str, list[Any]]])
    return [
        answer
        for version, group in _by_version(answers).items()
        for row, answer in enumerate(group)
        if not is_same(
            answer.outputs, {name: values[row] for name, values in offline[version].items()}
        )
    ]


def is_same(answered: dict[str, Any], predicted: dict[str, Any]) -> bool:
    """Compare the outputs of one row: floats within the tolerance, the rest exactly."""
    return answered.keys() == predicted.keys() and all(
        abs(answered[name] - value) <= TOLERANCE
        if isinstance(value, float)
        else answered[name] == value
        for name, value in predicted.items()
    )


def _by_version(answers: Iterable[Answer]) -> dict[int, list[Answer]]:
    groups: dict[int, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.version, []).append(answer)
    return groups
