"""Classes of a tree of images: from a dataset.json as StyleGAN and EDM write it, or from the sub-folders."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ganforge.datasets.files import Files, beside
from ganforge.datasets.samples import DataError, check_fact

LABEL_FILE = "dataset.json"


@dataclass(frozen=True)
class Labels:
    """`values` int64 (N,) in [0, num_classes), zeros without classes; `class_names` one for each class."""

    values: Tensor
    num_classes: int
    class_names: list[str]


def find_labels(files: Files, names: Sequence[str], num_classes: int | None) -> Labels:
    """The labels of the images `names`.

    A dataset.json decides when there is one: `{"labels": [["a/1.png", 3], ...]}`, or null for no classes, and
    the classes' names beside them where it has any, `"class_names": ["cat", ...]`. Else each folder below the
    deepest common one is a class, in alphabetical order. `num_classes` 0 asks for no labels.
    """
    unlabelled = Labels(torch.zeros(len(names), dtype=torch.int64), 0, [])
    if num_classes == 0:
        return unlabelled
    common = _common_folders(names)
    for folders in dict.fromkeys(((), tuple(common))):
        path = "/".join([*folders, LABEL_FILE])
        if path in files.names:
            content = _read_json(files, path)
            pairs = _label_pairs(files, path, content)
            if pairs is None:
                break
            labels = _json_labels(files, names, pairs, "/".join([*folders, ""]), num_classes)
            class_names = content.get("class_names")
            return labels if class_names is None else _with_names(labels, class_names, path, num_classes)
    else:
        classes = [name.split("/")[:-1][len(common) :] for name in names]
        if any(classes):
            return _folder_labels(files, names, classes, num_classes)
    check_fact("num_classes", num_classes, 0, str(files.root))
    return unlabelled


def _common_folders(names: Sequence[str]) -> list[str]:
    first, last = (name.split("/")[:-1] for name in (min(names), max(names)))
    common = []
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        common.append(one)
    return common


def _folder_labels(
    files: Files, names: Sequence[str], classes: list[list[str]], num_classes: int | None
) -> Labels:
    for name, folders in zip(names, classes, strict=True):
        if not folders:
            raise DataError(
                f"{files.root}: {name} lies beside sub-folders, so it has no class: move it into one, or set "
                f"{beside(files.what, 'num_classes=0')} to take all images without classes"
            )
    class_names = sorted({folders[0] for folders in classes})
    check_fact("num_classes", num_classes, len(class_names), str(files.root))
    number = {name: index for index, name in enumerate(class_names)}
    return Labels(torch.tensor([number[folders[0]] for folders in classes]), len(class_names), class_names)


def _read_json(files: Files, path: str) -> dict[str, Any]:
    try:
        content = json.loads(files.read(path))
    except ValueError as error:
        raise DataError(
            f"{files.root}/{path} is not JSON ({error}): mend it, or set {beside(files.what, 'num_classes=0')}"
        ) from None
    return content if isinstance(content, dict) else {}


def _label_pairs(files: Files, path: str, content: dict[str, Any]) -> dict[str, int] | None:
    place = f"{files.root}/{path}"
    labels = content.get("labels", ())
    if labels is None:
        return None
    if not isinstance(labels, list):
        raise DataError(
            f'{place} has no list under "labels": write {{"labels": [["NAME", LABEL], ...]}}, or null '
            "for no classes"
        )
    pairs: dict[str, int] = {}
    for pair in labels:
        match pair:
            case [str(name), int(label)] if label >= 0 and not isinstance(label, bool):
                pairs[name.replace("\\", "/")] = label
            case _:
                raise DataError(
                    f"{place} has the label {pair!r}: each must be [NAME, whole number from 0 upwards]"
                )
    return pairs


def _json_labels(
    files: Files, names: Sequence[str], pairs: dict[str, int], prefix: str, num_classes: int | None
) -> Labels:
    place = f"{files.root}/{prefix}{LABEL_FILE}"
    if missing := sorted({prefix + name for name in pairs} - set(files.names)):
        raise DataError(
            f"{place} labels {missing[0]} ({len(missing)} such), which does not exist: add the file "
            "or remove its label"
        )
    if bare := [name for name in names if name.removeprefix(prefix) not in pairs]:
        raise DataError(
            f"{place} has no label for {bare[0]} ({len(bare)} such): add it, or set "
            f"{beside(files.what, 'num_classes=0')} to take all images without classes"
        )
    values = [pairs[name.removeprefix(prefix)] for name in names]
    found = max(values) + 1
    # More classes than labels seen is fine: the file may hold a part of a larger set.
    if num_classes is None or num_classes < found:
        check_fact("num_classes", num_classes, found, str(files.root))
        num_classes = found
    return Labels(torch.tensor(values), num_classes, [str(label) for label in range(num_classes)])


def _with_names(labels: Labels, names: Any, path: str, num_classes: int | None) -> Labels:
    """The labels with the names that dataset.json gives their classes; there may be names without an image."""
    if not isinstance(names, list):
        raise DataError(f'{path} has "class_names": {names!r}: make it a list of names, or leave it out')
    count = labels.num_classes if num_classes else max(labels.num_classes, len(names))
    given = [str(name) for name in names]
    return Labels(labels.values, count, [*given, *map(str, range(len(given), count))][:count])
