"""Comparing every answer with what its version predicts offline for that row."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.contracts.names import model_uri
from watchkeeper.demo import system
from watchkeeper.demo.sender import Answer

TOLERANCE: Final = 1e-6  # absolute, of scores; all else must be equal
OFFLINE_SECONDS: Final = 60.0
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
    by_version: dict[int, list[Answer]] = {}
    for answer in answers:
        by_version.setdefault(answer.version, []).append(answer)
    truths = await asyncio.gather(
        *(_offline(model, version, mine, mlflow, folder) for version, mine in by_version.items())
    )
    wrong: Counter[str] = Counter()
    for mine, truth in zip(by_version.values(), truths, strict=True):
        wrong.update(
            answer.protocol
            for place, answer in enumerate(mine)
            if not same(answer.outputs, {name: values[place] for name, values in truth.items()})
        )
    return wrong


def same(answered: dict[str, Any], predicted: dict[str, Any]) -> bool:
    """Compare one answer with the offline one: scores within the tolerance, the rest equal."""
    return answered.keys() == predicted.keys() and all(
        abs(answered[name] - value) <= TOLERANCE
        if isinstance(value, float)
        else answered[name] == value
        for name, value in predicted.items()
    )


async def _offline(
    model: str, version: int, answers: list[Answer], mlflow: str, folder: Path
) -> dict[str, list[Any]]:
    inputs, outputs = folder / f"rows-v{version}.json", folder / f"offline-v{version}.json"
    columns = {name: [answer.inputs[name] for answer in answers] for name in answers[0].inputs}
    await asyncio.to_thread(inputs.write_bytes, msgspec.json.encode(columns))
    process = await asyncio.create_subprocess_exec(
        str(PYTHON),
        *("-m", "watchkeeper.training.offline", model, str(version), str(inputs), str(outputs)),
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
            f"offline prediction of {model_uri(model, version)}: {said.decode()[-1500:]}"
        )
    raw = await asyncio.to_thread(outputs.read_bytes)
    return msgspec.json.decode(raw, type=dict[str, list[Any]])
