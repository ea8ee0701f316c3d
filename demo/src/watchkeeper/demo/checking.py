"""Comparing every answer with what its version predicts offline for that row."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.demo import system
from watchkeeper.demo.sender import Answer

TOLERANCE: Final = 1e-6  # absolute, of scores; all else must be equal
OFFLINE_SECONDS: Final = 120.0
PYTHON: Final = system.ROOT / "training" / ".venv" / "bin" / "python"


def read_answers(files: Iterable[Path]) -> list[Answer]:
    """Read what the senders kept."""
    decoder = msgspec.json.Decoder(Answer)
    answers: list[Answer] = []
    for file in files:
        with file.open("rb") as lines:
            answers += map(decoder.decode, lines)
    return answers


async def wrong_answers(
    answers: list[Answer], model: str, mlflow: str, folder: Path
) -> Counter[str]:
    """Count by protocol the answers that their version would not give offline.

    Raises:
        UnavailableError: a version could not be asked offline.
    """
    rows, truth = folder / "rows.json", folder / "offline.json"
    await asyncio.to_thread(rows.write_bytes, questions(answers))
    process = await asyncio.create_subprocess_exec(
        *(str(PYTHON), "-m", "watchkeeper.training.offline", model, str(rows), str(truth)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow},
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), OFFLINE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise system.UnavailableError(
            f"offline prediction of {model}'s versions: {said.decode()[-1500:]}"
        )
    wrong = unlike(answers, await asyncio.to_thread(truth.read_bytes))
    return Counter(answer.protocol for answer in wrong)


def questions(answers: Iterable[Answer]) -> bytes:
    """Return the rows that were asked about, for the offline prediction of their versions."""
    return msgspec.json.encode(
        {
            version: {name: [answer.inputs[name] for answer in mine] for name in mine[0].inputs}
            for version, mine in _by_version(answers).items()
        }
    )


def unlike(answers: Iterable[Answer], predicted: bytes) -> list[Answer]:
    """Return the answers that are not what was predicted offline for the same ones' questions."""
    truth = msgspec.json.decode(predicted, type=dict[int, dict[str, list[Any]]])
    return [
        answer
        for version, mine in _by_version(answers).items()
        for place, answer in enumerate(mine)
        if not same(answer.outputs, {n: values[place] for n, values in truth[version].items()})
    ]


def _by_version(answers: Iterable[Answer]) -> dict[int, list[Answer]]:
    found: dict[int, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer.version, []).append(answer)
    return found


def same(answered: dict[str, Any], predicted: dict[str, Any]) -> bool:
    """Compare one answer with the offline one: scores within the tolerance, the rest equal."""
    return answered.keys() == predicted.keys() and all(
        abs(answered[name] - value) <= TOLERANCE
        if isinstance(value, float)
        else answered[name] == value
        for name, value in predicted.items()
    )
