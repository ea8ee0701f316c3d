"""The tags of runs and versions in MLflow, and the place of a version's files."""

from typing import Final

RUN_TAG: Final = "watchkeeper.run"
CODE_TAG: Final = "watchkeeper.code_version"
DIGEST_TAG: Final = "watchkeeper.digest"  # see watchkeeper.core.version.digest
NO_DIGEST: Final = "none"  # read from files without a manifest; never written
GATE_TAG: Final = "watchkeeper.gate"  # "passed" or "rejected"
ROLLOUT_TAG: Final = "watchkeeper.rollout"  # "promoted", or "rolled-back: <reason>"
# A version counts only if its number is greater than this tag, see Registry.create_version.
ABOVE_TAG: Final = "watchkeeper.number_above"
# On a version that was registered again because its number was used before: its content, and the
# number.
AGAIN_TAG: Final = "watchkeeper.again"
REUSED_TAG: Final = "watchkeeper.reused_number"
ADOPT_TAG: Final = "watchkeeper.adopt"  # by people: the model that is to adopt the version
FILES: Final = "model"  # the folder of the version's files in the artifacts of its MLflow run
