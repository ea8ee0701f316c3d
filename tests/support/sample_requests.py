"""A valid row of each declared model, from the sample request in its folder."""

import json
from pathlib import Path
from typing import Any

MODELS = Path(__file__).resolve().parents[2] / "models"


def sample_request(model: str) -> dict[str, Any]:
    """Return the V2 request of ``models/<model>/sample-request.json``."""
    found: dict[str, Any] = json.loads((MODELS / model / "sample-request.json").read_text())
    return found


def sample_row(model: str) -> dict[str, Any]:
    """Return the first row of the sample request, by column."""
    return {column["name"]: column["data"][0] for column in sample_request(model)["inputs"]}
