"""`ganforge profile`: where a round's time, memory and arithmetic go, for the very run that `train` would start."""

from __future__ import annotations

import json
import logging
import math
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console
from rich.table import Table

from ganforge.commands.checks import check_ranks, check_trainer
from ganforge.commands.configuration import plain
from ganforge.commands.errors import RunFailedError, UserError
from ganforge.commands.job_of_a_sweep import is_job_of_a_sweep
from ganforge.commands.largest_batch import find_largest_batch
from ganforge.commands.run_folder import make_folder
from ganforge.commands.train import train
from ganforge.training.profiling import Profiler, matmul_flops

log = logging.getLogger("ganforge")

_PRECISIONS = {"bf16-mixed": torch.bfloat16, "64-true": torch.float64}


def profile(config: DictConfig) -> dict[str, Any]:
    """Plays a few rounds, prints a table and writes profile.json and trace.json; leaves no run behind.

    Raises:
        UserError: anything `train` would refuse, and settings of its own that make no sense.
        RunFailedError: the rounds did not come to their end.
    """
    settings = plain(config)
    _check(settings)
    out = Path(HydraConfig.get().runtime.output_dir)
    make_folder(out, "out")
    only_memory = settings["only"] == "memory"
    result = _measure(config, out, only_memory=only_memory)
    if not only_memory:
        _complete(result, settings)
    _write(result, out)
    _show(result, settings["name"], out)
    if settings["largest_batch"]:
        log.info("looking for the largest batch size, in processes of their own ...")
        on_device = "device_peak_bytes" in result["memory"]
        found = find_largest_batch(settings["batch_size"], settings["accumulate"], out, on_device=on_device)
        result["largest_batch"] = found
        print(found["said"])
        _write(result, out)
    return result


def _write(result: Mapping[str, Any], out: Path) -> None:
    (out / "profile.json").write_text(json.dumps(result, indent=2) + "\n")


def _check(settings: Mapping[str, Any]) -> None:
    for key in ("warmup", "rounds"):
        if settings[key] is not None and settings[key] < 1:
            raise UserError(f"{key}={settings[key]} must be at least 1")
    if settings["only"] not in (None, "memory"):
        raise UserError(f"only={settings['only']}: it can be memory, or left out for everything")
    if settings["resume"] is not None:
        raise UserError(f"resume={settings['resume']}: a profile starts anew; leave resume out")
    check_trainer(settings["trainer"])
    if check_ranks(settings) > 1:
        raise UserError(
            f"trainer.devices={settings['trainer']['devices']}: a profile is of one process; trainer.devices=1 "
            "with the batch_size of one of them shows what it does between the messages"
        )
    if settings["largest_batch"] and (is_job_of_a_sweep() or HydraConfig.get().mode == RunMode.MULTIRUN):
        raise UserError("largest_batch=true is for one configuration: leave out -m")


def _measure(config: DictConfig, out: Path, *, only_memory: bool) -> dict[str, Any]:
    """`ganforge train` with the profiler as its last callback, in a folder that goes away."""
    profiler = f"{Profiler.__module__}.{Profiler.__name__}"
    callback = {"_target_": profiler, "out": str(out), "warmup": config.warmup, "rounds": config.rounds}
    hydra: Any = HydraConfig.instance().cfg
    level = log.level
    with (
        tempfile.TemporaryDirectory(prefix=".run-", dir=out) as folder,
        open_dict(config),
        read_write(hydra.hydra),
    ):
        config.callbacks.profiler = {**callback, "memory_only": only_memory}
        for logger in config.logger.values():
            if OmegaConf.is_dict(logger) and logger.get("mode") == "online":
                logger.mode = "offline"  # no server hears of it
        if only_memory:
            config.metrics = {"_target_": "ganforge.evaluation.evaluator.NoEvaluation"}
            config.stop = {}
        hydra.hydra.runtime.output_dir = folder
        log.setLevel(max(level, logging.WARNING))  # where the run lies and how it ended is of no interest
        try:
            train(config)
        except RunFailedError as error:
            reason = "it was stopped" if error.stopped else str(error.__cause__ or error)
            raise RunFailedError(f"the profile is not complete: {reason}", error.exit_code) from error
        except torch.OutOfMemoryError as error:
            way_out = "a smaller batch_size, or accumulate=2 and more, needs less"
            raise RunFailedError(f"out of memory with batch_size={config.batch_size}: {way_out}") from error
        finally:
            log.setLevel(level)
            hydra.hydra.runtime.output_dir = str(out)
    result: dict[str, Any] = json.loads((out / "profile.json").read_text())
    return result


def _complete(result: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Adds what follows from the measurements, and what the device can do."""
    device = torch.device(result["device"])
    dtype = _PRECISIONS.get(result["precision"], torch.float32)
    images, seconds = result["images_per_round"], result["round_seconds"]
    for each in result["phases"]:
        each["share"] = each["seconds"] / seconds
    per_kimg = seconds * 1000 / images
    for each in result["periodic"]:
        cost = each["seconds_per_kimg"]
        each["share"] = None if cost is None else cost / per_kimg
    between = sum(each["seconds_per_kimg"] or 0 for each in result["periodic"])
    result.update(
        name=settings["name"],
        batch_size=settings["batch_size"],
        device_name=device_name(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        images_per_second=images / seconds,
        images_per_second_with_periodic=1000 / (per_kimg + between),
        flops_per_second=result["flops"] / seconds,
        matmul_flops_per_second=matmul_flops(device, dtype),
    )
    result["share_of_matmul_peak"] = result["flops_per_second"] / result["matmul_flops_per_second"]


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def _show(result: Mapping[str, Any], name: str, out: Path) -> None:
    console = Console(soft_wrap=True, highlight=False)
    if "phases" in result:
        rounds, images = result["rounds"]["timed"], result["images_per_round"]
        console.print(
            f"{name}: {result['images_per_second']:,.0f} img/s, {_ms(result['round_seconds'])} ms a round of "
            f"{images} images; medians of {rounds} rounds",
            markup=False,
        )
        threads = f", {result['threads']} threads" if result["device"] == "cpu" else ""
        console.print(f"{result['device_name']}{threads}, precision {result['precision']}", markup=False)
        console.print(_phases(result))
        console.print(_periodic(result))
        _show_totals(console, result)
    memory = result["memory"]
    parts = [f"process {_mb(memory['process_peak_bytes'])} MB"]
    if "device_peak_bytes" in memory:
        parts.append(f"device {_mb(memory['device_peak_bytes'])} MB")
    held = memory.get("held_bytes", {})
    between = "; between rounds " + ", ".join(f"{k.replace('_', ' ')} {_mb(v)}" for k, v in held.items())
    console.print(f"peak memory: {', '.join(parts)}{between if held else ''}")
    files = "profile.json and trace.json (for ui.perfetto.dev)" if "phases" in result else "profile.json"
    console.print(f"{files}: {out}", markup=False)


def _phases(result: Mapping[str, Any]) -> Table:
    table = Table("phase of a round")
    for header in ("share", "ms", "GFLOP", "GFLOP/s", "peak MB"):
        table.add_column(header, justify="right")
    before = ""
    for each in result["phases"]:
        part, _, phase = each["phase"].partition(": ")
        if phase and part != before:
            whole = [other for other in result["phases"] if other["phase"].startswith(f"{part}: ")]
            table.add_section()
            shared, taken = (sum(other[key] for other in whole) for key in ("share", "seconds"))
            table.add_row(part, f"{shared:.1%}", _ms(taken), "", "", "", style="bold")
        elif not phase and before:
            table.add_section()
            part = ""
        before = part
        flops, seconds = each["flops"], each["seconds"]
        counted = (f"{flops / 1e9:.3g}", f"{flops / seconds / 1e9:,.3g}") if flops else ("", "")
        peak = "" if each["peak_bytes"] is None else _mb(each["peak_bytes"])
        title = f"  {phase}" if phase else each["phase"]
        table.add_row(title, f"{each['share']:.1%}", _ms(seconds), *counted, peak)
    table.add_section()
    speed = (f"{result['flops'] / 1e9:.3g}", f"{result['flops_per_second'] / 1e9:,.3g}")
    table.add_row("the round", "100%", _ms(result["round_seconds"]), *speed, "", style="bold")
    return table


def _periodic(result: Mapping[str, Any]) -> Table:
    table = Table("now and then")
    for header in ("once, ms", "each kimg", "ms per kimg", "of the rounds' time"):
        table.add_column(header, justify="right")
    for each in result["periodic"]:
        if each["share"] is None:
            table.add_row(each["name"], _ms(each["seconds"]), "at the end", "", "")
            continue
        cost = _ms(each["seconds_per_kimg"])
        table.add_row(
            each["name"], _ms(each["seconds"]), f"{each['every_kimg']:g}", cost, f"{each['share']:.1%}"
        )
    return table


def _show_totals(console: Console, result: Mapping[str, Any]) -> None:
    console.print(f"with what comes now and then: {result['images_per_second_with_periodic']:,.0f} img/s")
    steps = result["optimizer_steps"]
    console.print(
        f"optimizer steps a round: discriminator {steps['discriminator']}, generator {steps['generator']}"
    )
    console.print(
        f"{result['flops_per_second'] / 1e9:,.3g} GFLOP/s, {result['share_of_matmul_peak']:.0%} of the "
        f"{result['matmul_flops_per_second'] / 1e9:,.3g} GFLOP/s of large matrix products in this precision"
    )


def _ms(seconds: float) -> str:
    value = seconds * 1000
    digits = 0 if value >= 1000 or not value else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 3)}f}"


def _mb(count: float) -> str:
    return f"{count / 2**20:,.0f}" if count >= 10 * 2**20 else f"{count / 2**20:.2g}"
