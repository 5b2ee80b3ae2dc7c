"""`ganforge prepare`: a folder or ZIP file of images to shards or one ZIP file, of one size, with labels."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from omegaconf import DictConfig

from ganforge.commands.configuration import plain
from ganforge.commands.errors import RunFailedError, UserError, user_errors
from ganforge.commands.run_folder import make_folder, quoted
from ganforge.datasets.image_folder import CorruptImageError, StreamedImages, default_threads, open_images
from ganforge.datasets.preparation import Format, OutOfSpaceError, Prepared
from ganforge.datasets.preparation import prepare as write

log = logging.getLogger("ganforge")


def prepare(config: DictConfig) -> None:
    """Writes `out`, or goes on with what a preparation that was stopped has left of it.

    Raises:
        UserError: images, settings or a place that cannot be used.
        RunFailedError: the disk is full, or the user stopped it.
    """
    settings = plain(config)
    out, format = _check(settings)
    with user_errors():
        images = _open(settings)
    make_folder(out.parent, "out")
    go_on = "the same command goes on from there"
    try:
        with user_errors():
            prepared = write(
                images,
                out,
                format=format,
                workers=settings["workers"] or default_threads(),
                shard_bytes=settings["shard_mb"] * 1e6,
                skip_broken=settings["skip_broken"],
            )
    except UserError as error:
        if isinstance(error.__cause__, OutOfSpaceError):
            raise RunFailedError(f"{error}: make room, and {go_on}") from error
        raise
    except KeyboardInterrupt:
        raise RunFailedError(f"stopped; {go_on}", exit_code=130) from None
    _announce(images, prepared, out, format)


def _check(settings: Mapping[str, Any]) -> tuple[Path, Format]:
    if settings["source"] is None or settings["out"] is None:
        raise UserError("what and where to is needed: ganforge prepare SOURCE out=PATH")
    for key in ("workers", "shard_mb"):
        if settings[key] is not None and not settings[key] > 0:
            raise UserError(f"{key}={settings[key]:g} must be greater than 0")
    out = Path(settings["out"]).expanduser()
    zipped = out.suffix.lower() == ".zip"
    format = settings["format"] or ("zip" if zipped else "shards")
    if format not in get_args(Format):
        raise UserError(f"format={format} is not known: take one of {', '.join(get_args(Format))}")
    if zipped != (format == "zip"):
        fitting = "a file: out=NAME.zip" if format == "zip" else "a folder, whose name does not end in .zip"
        raise UserError(f"out={settings['out']} does not fit format={format}, which writes {fitting}")
    return out, cast(Format, format)


def _open(settings: Mapping[str, Any]) -> StreamedImages:
    asked = settings["num_classes"]
    try:
        images = open_images(
            settings["source"],
            settings["image_size"],
            settings["channels"],
            num_classes=0 if asked == 0 else None,
            resize=settings["resize"],
            on_corrupt="skip" if settings["skip_broken"] else "refuse",
            what="source",
        )
    except CorruptImageError as error:
        raise UserError(f"{error.fault}: replace or remove it, or set skip_broken=true") from error
    if asked not in (None, images.num_classes):
        raise UserError(
            f"num_classes={asked} does not fit {settings['source']}, which has {images.num_classes}: leave it out"
        )
    return images


def _announce(images: StreamedImages, prepared: Prepared, out: Path, format: Format) -> None:
    channels, height, width = images.shape
    classes = f" in {images.num_classes} classes" if images.num_classes else ""
    files = "a ZIP file" if format == "zip" else f"{prepared.files} shard{'s' * (prepared.files > 1)}"
    if prepared.damaged:
        shown = ", ".join([*prepared.damaged[:5], *["..."] * (len(prepared.damaged) > 5)])
        count = prepared.images + len(prepared.damaged)
        log.warning("left out %d of %d images as damaged: %s", len(prepared.damaged), count, shown)
    log.info(
        "%s: %s images of %dx%dx%d%s, %s of %s",
        out,
        f"{prepared.images:,}",
        channels,
        height,
        width,
        classes,
        files,
        _size(prepared.size),
    )
    source = "image_folder data.root" if format == "zip" else "streaming data.path"
    name = out.stem if out.stem.isidentifier() else "my_pictures"
    log.info("train on it: ganforge train data=%s=%s name=%s", source, _word(out), name)


def _word(path: Path) -> str:
    """The path as a value on a command line."""
    text = str(path)
    simple = text.replace("/", "").replace("_", "").replace("-", "").replace(".", "").isalnum()
    return text if simple and text.isascii() else shlex.quote(quoted(text))


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
