"""Which versions of MLflow a model adopts without a person, as an installation says it.

The rollout controller reads it. It does not know the declarations of models.
"""

from typing import Literal

import msgspec


class AdoptionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same as :class:`watchkeeper.training.declaration.Adopt` says in the declaration.

    Attributes:
        model: The name of the registered model in MLflow.
        when: "each" adopts every new version, "tag" the newest one with the tag of the adopting
            model, "hand" none.
    """

    model: str
    when: Literal["hand", "tag", "each"] = "hand"
