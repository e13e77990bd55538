"""What this machine is, what is wrong with it, and what each shipped recipe would do here (``litechex doctor``)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lite_chex.errors import UserError
from lite_chex.model.hardware import choose_dtype, cpu_flags, gpu_memory_gb

if TYPE_CHECKING:
    from lite_chex.recipe import Recipe

DISTRIBUTION = "lite-chex"
HUB = "https://huggingface.co"
GIB = 2**30
LOW_DISK = 20 * GIB
"""A 7B model's download is about 15 GB."""

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """One line of the report; ``hint`` says what to do where something is wrong."""

    topic: str
    name: str
    value: str
    status: Status = "ok"
    hint: str = ""


@dataclass(frozen=True)
class RecipeHere:
    """A shipped recipe on this machine. peak: the largest stage's planned GiB; None where it cannot be planned."""

    name: str
    card: str
    model: str
    peak: float | None
    verdict: str
    fits: bool


def examine(check_hub: bool = False) -> list[Check]:
    """All checks. Nothing is sent anywhere unless ``check_hub``: then one request goes to the hub's front page."""
    return [*_card(), *_machine(), *_four_bits(), *check_packages(), *_disk(), *_hub(check_hub)]


def _card() -> list[Check]:
    import torch

    driver = _driver()
    if not torch.cuda.is_available():
        if driver and torch.version.cuda is None:
            hint = "torch is a CPU build: install one with CUDA (pytorch.org, Get started)"
            return [Check("card", "GPU", f"driver {driver}, but torch cannot use it", "problem", hint)]
        if driver:
            hint = "is CUDA_VISIBLE_DEVICES empty, or the driver older than torch's CUDA?"
            found = f"driver {driver}, CUDA {torch.version.cuda}: no device"
            return [Check("card", "GPU", found, "problem", hint)]
        return [Check("card", "GPU", "none", "note", "the CPU recipes run here; 7B models need a card")]
    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    capability = (properties.major, properties.minor)
    old = capability < (7, 0)
    checks = [
        Check("card", "GPU", properties.name),
        Check(
            "card", "memory", f"{total / GIB:.1f} GiB, {free / GIB:.1f} free", "ok" if free > 0.8 * total else "note"
        ),
        Check(
            "card",
            "compute capability",
            f"{capability[0]}.{capability[1]}",
            "problem" if old else "ok",
            "4-bit training is only tried from 7.0 (V100, T4) on" if old else "",
        ),
        Check("card", "driver, CUDA", f"{driver or 'unknown'}, {torch.version.cuda}"),
    ]
    if torch.cuda.device_count() > 1:
        checks.append(Check("card", "GPUs", f"{torch.cuda.device_count()}; training uses the first", "note"))
    return checks


def _driver() -> str:
    """The NVIDIA driver's version, empty where there is none."""
    text = Path("/proc/driver/nvidia/version")
    if text.is_file():
        words = text.read_text(encoding="utf-8", errors="replace").split("\n")[0].split()
        return next((w for w in words if w[:1].isdigit() and "." in w), "unknown version")
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.splitlines()[0].strip() if found.returncode == 0 and found.stdout.strip() else ""


def _machine() -> list[Check]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB if hasattr(os, "sysconf") else 0.0
    flags = sorted(cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8"})
    dtype, reason = choose_dtype("auto")
    from lite_chex.model.unsloth_backend import choose_backend

    backend, why = choose_backend("auto")
    return [
        Check("machine", "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Check("machine", "CPU", f"{os.cpu_count()} cores, {memory:.1f} GiB; {', '.join(flags) or 'no known flags'}"),
        Check("machine", "dtype", f"{dtype} ({reason})"),
        Check("machine", "backend", f"{backend} ({why})"),
    ]


def check_packages(requirements: list[str] | None = None) -> list[Check]:
    """Installed versions against the ranges that the installed lite-chex asks for (or the given ones)."""
    from packaging.requirements import Requirement

    if requirements is None:
        try:
            requirements = metadata.requires(DISTRIBUTION) or []
        except metadata.PackageNotFoundError:
            hint = "pip install -e . makes it known"
            return [Check("packages", DISTRIBUTION, "not installed as a package: versions not checked", "note", hint)]
    checks = []
    for line in requirements:
        wanted = Requirement(line)
        if 'extra == "test"' in str(wanted.marker):  # a developer's; it repeats other extras
            continue
        optional = wanted.marker is not None and "extra" in str(wanted.marker)
        if wanted.marker is not None and not optional and not wanted.marker.evaluate():
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            if not optional:
                hint = f'pip install "{wanted.name}{wanted.specifier}"'
                checks.append(Check("packages", wanted.name, "missing", "problem", hint))
            continue
        fine = wanted.specifier.contains(found, prereleases=True)
        hint = "" if fine else f'clashes: pip install "{wanted.name}{wanted.specifier}"'
        checks.append(Check("packages", wanted.name, found, "ok" if fine else "problem", hint))
    return checks


def _four_bits() -> list[Check]:
    from lite_chex.model.backbone import check_4bit

    try:
        check_4bit()
    except UserError as error:
        return [Check("machine", "4-bit weights", "bitsandbytes cannot quantise here", "problem", str(error))]
    return [Check("machine", "4-bit weights", "bitsandbytes quantises here")]


def hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _disk() -> list[Check]:
    checks = []
    for name, folder in (("working folder", Path.cwd()), ("hub cache", hub_cache())):
        place = next(p for p in (folder, *folder.parents) if p.is_dir())
        free = shutil.disk_usage(place).free
        low = free < LOW_DISK
        hint = "a 7B model needs about 15 GB there" if low else ""
        checks.append(Check("disk", name, f"{free / GIB:.0f} GiB free", "note" if low else "ok", hint))
    return checks


def _hub(check: bool) -> list[Check]:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return [Check("hub", "access", "offline (HF_HUB_OFFLINE): only cached models and folders", "note")]
    if not check:
        return [Check("hub", "access", "not tried; --check-hub sends one request", "note")]
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(HUB, method="HEAD"), timeout=10) as answer:
            return [Check("hub", "access", f"{HUB} answers ({answer.status})")]
    except (URLError, OSError) as error:
        why = getattr(error, "reason", error)
        hint = "download models elsewhere and name their folder in model.model_name_or_path"
        return [Check("hub", "access", f"{HUB} does not answer ({why})", "problem", hint)]


def model_place(recipe: Recipe) -> str:
    """Whether the recipe's base model is a folder, in the hub's cache, or still to be downloaded."""
    from huggingface_hub import try_to_load_from_cache

    name = recipe.model.model_name_or_path
    if Path(name).is_dir():
        return "on disk"
    found = try_to_load_from_cache(name, "config.json")
    return "cached" if isinstance(found, str) else "to download"


def recipes_here() -> list[RecipeHere]:
    """What each shipped recipe would do on this machine, by the memory plan."""
    from lite_chex.model.plan import plan_recipe
    from lite_chex.recipe import default_recipe, load_recipe, shipped_recipes

    card, rows, default = gpu_memory_gb(), [], default_recipe()
    for name in shipped_recipes():
        recipe = load_recipe(name)
        need = recipe.hardware.min_gpu_gb
        shown = f"{need:g} GB" if need else "none"
        try:
            plan = plan_recipe(recipe)
        except UserError as error:
            rows.append(RecipeHere(name, shown, model_place(recipe), None, str(error), False))
            continue
        worst = max(plan.stages, key=lambda s: s.total)
        if need and card is None:
            verdict, fits = "needs a card", False
        elif plan.fits:
            verdict, fits = "runs here", True
        else:
            verdict, fits = plan.warning(worst.name) or "too big", False
        if name == default:
            verdict += " (the default)"
        rows.append(RecipeHere(name, shown, model_place(recipe), worst.total / GIB, verdict, fits))
    return rows


def versions() -> str:
    """One line for bug reports."""
    from lite_chex import __version__

    return f"lite-chex {__version__}, Python {sys.version.split()[0]}"
