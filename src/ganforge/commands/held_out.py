"""`train held_out=...`: real images that are not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from ganforge.commands import building
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.sources import open_images
from ganforge.datasets.pictures import Resize
from ganforge.datasets.samples import Samples

_KINDS = "a folder or ZIP of images, a folder of shards, a .npz or .npy file"


def held_out_data(settings: Mapping[str, Any], data: Samples) -> Samples | None:
    """The samples that `held_out` names, of the kind of those that are trained on; None where it names none.

    Raises:
        UserError: nothing that can be read, or images of another size, other channels or other classes.
    """
    value = settings.get("held_out")
    if value is None:
        return None
    found = _open(str(value), settings["data"], data)
    if found.shape != data.shape:
        raise UserError(
            f"held_out={value} has samples {_shape(found)}, and those trained on are {_shape(data)}"
        )
    if settings["num_classes"] and (found.num_classes, found.class_names) != (
        data.num_classes,
        data.class_names,
    ):
        raise UserError(
            f"held_out={value} has {_classes(found)}, and {data.name} has {_classes(data)}: they have to be the same, "
            "in the same order; or add conditional=false"
        )
    return found


def _open(value: str, of_data: Mapping[str, Any], data: Samples) -> Samples:
    path = Path(value).expanduser()
    if value == "test" and not path.exists():
        if of_data.get("split") in (None, "test"):
            raise UserError(
                f"held_out=test: {data.name} has no test part beside what is trained on: name a folder or a file"
            )
        samples: Samples = building.build({**of_data, "split": "test"}, "held_out")
        return samples
    if not path.exists():
        raise UserError(
            f"held_out={value} does not exist: it can be {_KINDS}, or `test` for data that has a test part"
        )
    with user_errors():
        # Data sets that come with the package have ways of their own to reach another size.
        own: Any = of_data.get("resize")
        resize: Resize = own if own in get_args(Resize) else "crop"
        found = open_images(path, "held_out", data.image_size, channels=data.channels, resize=resize)
    if found is None:
        raise UserError(f"held_out={value} is no kind of file that images come in: {_KINDS}")
    return found


def _shape(samples: Samples) -> str:
    return "x".join(str(length) for length in samples.shape)


def _classes(samples: Samples) -> str:
    names = ", ".join(samples.class_names[:5]) + (", ..." if len(samples.class_names) > 5 else "")
    return f"{samples.num_classes} classes ({names})" if samples.num_classes else "no classes"
