"""Which versions of MLflow a model adopts without a person, as an installation says it.

The rollout controller reads it. It does not know the declarations of models.

A version that consists of code is executed by training runs and servers only if the variable
:data:`TRUSTED_CODE` is :data:`YES` there: the owner of the model sets it in the image, or in the
project of a local system.
"""

from typing import Final, Literal

import msgspec

TRUSTED_CODE: Final = "WATCHKEEPER_TRUSTED_CODE"
YES: Final = "yes"


class AdoptionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same as :class:`watchkeeper.training.declaration.Adopt` says in the declaration.

    Attributes:
        model: The name of the registered model in MLflow.
        when: "each" adopts every new version, "tag" the newest one with the tag of the adopting
            model, "hand" none.
    """

    model: str
    when: Literal["hand", "tag", "each"] = "hand"
