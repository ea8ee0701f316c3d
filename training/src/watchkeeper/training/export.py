"""Stage 5, export: the ONNX form of each pipeline, kept where it agrees with the pipeline."""

import logging

import msgspec

from watchkeeper.core.head import Head
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.fit import Fitted
from watchkeeper.training.onnx_form import difference, to_onnx
from watchkeeper.training.rows import joined_scored

log = logging.getLogger(__name__)


class Exported(msgspec.Struct, frozen=True):
    """The heads as the manifest describes them, and the ONNX files by name."""

    heads: tuple[Head, ...]
    files: dict[str, bytes]


def export(model: Model, parameters: Parameters, fitted: Fitted) -> Exported:
    """Convert every head, and keep the forms that agree with their pipelines.

    The comparison is on all rows, fitted ones too: the two forms differ near a tree's threshold,
    which is rare.
    """
    if parameters.onnx == "off":
        return Exported(fitted.heads, {})
    heads, files = [], {}
    scored = joined_scored(fitted.train, fitted.held, fitted.recent_train, fitted.unseen)
    for head, plain in zip(model.heads, fitted.heads, strict=True):
        try:
            form = to_onnx(fitted.pipelines[head.score], plain, model.columns)
            apart = difference(form, plain, scored)
        except Exception as error:  # noqa: BLE001 - skl2onnx and ONNX Runtime can raise anything
            log.warning(
                "%s: no ONNX form, so answers are slower: %s: %s",
                head.score,
                type(error).__name__,
                error,
            )
            heads.append(plain)
            continue
        if apart <= head.tolerance:
            name = f"{head.score}.onnx"
            files[name] = form
            heads.append(msgspec.structs.replace(plain, onnx=name, onnx_difference=apart))
        else:
            log.warning(
                "%s: the ONNX form differs by %.1e, more than the tolerance of %.1e: left out",
                head.score,
                apart,
                head.tolerance,
            )
            heads.append(plain)
    return Exported(tuple(heads), files)
