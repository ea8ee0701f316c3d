"""A declaration with an error in its own code: importing it fails."""

MODEL = {}["pump"]
