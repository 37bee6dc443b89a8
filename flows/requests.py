"""What options ask for. Without Prefect: commands that run nothing need no server and no flow.

Light to import: what names profiles or exercises imports PyTorch, and is imported where it is used.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from flows.machine import chosen_precision, cores, gpu, gpu_processes
from flows.options import Options, UsageError
from tasks.exercises import modules
from tasks.folders import outputs_folder, store_url
from tasks.place import Place
from tasks.sources.resolve import OWN_MODEL, Sources, resolve_sources

if TYPE_CHECKING:
    from flows.execution.graph import Request


def request_of(options: Options, sources: Sources | None = None, *, worker: bool = False) -> "Request":
    """The request that validated options mean: sources are looked for unless given, exercises imported.

    A ``worker`` looks only where ``tasks.sources.limits`` lets it.

    Raises:
        UsageError: a device that is not there.
        tasks.sources.resolve.SourceError: a source that cannot be used.
    """
    from flows.execution.graph import Request, load_exercises
    from tasks.recipes.profiles import PROFILES

    sources = sources or resolve_sources(options.sources, options.corpus, options.pretrained, worker=worker)
    device = device_named(options.device, options.profile, options.where)
    precision = chosen_precision(options.precision, device, outputs_folder())
    profile = PROFILES[options.profile].scaled(options.budget).computed_in(precision)
    if profile.stand_in and options.pretrained is None:
        sources = replace(sources, pretrained=OWN_MODEL)
    return Request(profile, sources, load_exercises(options.only or tuple(modules())), device)


def device_named(device: str, profile: str, where: str) -> str:
    """Either "cpu" or "cuda". On the pools "auto" is the profile's: the parent cannot see the worker's device.

    Raises:
        UsageError: CUDA is asked for and not there.
    """
    if where == "pool":
        from tasks.recipes.profiles import PROFILES

        return {"auto": "cuda" if PROFILES[profile].cuda else "cpu"}.get(device, device)
    if device == "cuda" and not gpu():
        raise UsageError("--device cuda: PyTorch finds no CUDA device here; leave the option out or use --device cpu")
    return {"auto": "cuda" if gpu() else "cpu"}.get(device, device)


def processes(options: Options, device: str) -> int:
    """Processes of a local run: as many as asked for, or else one per core, and on a GPU those that find memory."""
    return options.jobs or (gpu_processes() if device == "cuda" else cores())


def place_here(run: str) -> Place:
    """The store and the outputs of this machine, for one who shares no step with workers."""
    return Place(store_url(), str(outputs_folder()), run)
