"""The graph of the last request, kept in the outputs: to build it, all exercises are imported, and PyTorch with them.

That takes seconds; a plan takes a fraction of one. What is kept is for commands that look and run nothing.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flows.execution.nodes import Node
from flows.machine import GAIN_THAT_PAYS, bf16_gain, gpu, hardware
from flows.options import Options
from minigpt.atomic import write_atomic
from tasks.cache.keys import PROJECT, canonical, digest
from tasks.sources.references import Sources

PACKAGES = ("torch", "transformers", "tokenizers")  # whose versions are inputs of some step
ROOT = Path(__file__).parents[2]

Made = tuple[Mapping[str, Node], str]  # the nodes by name, and the device that they are for


def kept_graph(options: Options, sources: Sources, outputs: Path, make: Callable[[], Made]) -> Made:
    """What ``make`` makes of options and sources, or made of the same ones before, on this machine from this code.

    The nodes lack ``local``: what a step may use, but does not depend on.
    """
    file = outputs / "graphs" / f"{options.profile}.json"
    identity = _identity(options, sources, outputs)
    try:
        kept = json.loads(file.read_bytes())
        if kept["identity"] == identity:
            nodes = [Node(**{**node, "code": tuple(node["code"])}) for node in kept["nodes"]]
            return {node.name: node for node in nodes}, str(kept["device"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing kept, or not by this version
    graph, device = make()
    with suppress(OSError):  # a folder that cannot be written is told of by what needs it
        file.parent.mkdir(parents=True, exist_ok=True)
        data = {"identity": identity, "device": device, "nodes": [_plain(node) for node in graph.values()]}
        write_atomic(file, json.dumps(data).encode())
    return graph, device


def _plain(node: Node) -> dict[str, Any]:
    plain = {field.name: getattr(node, field.name) for field in fields(Node) if field.name != "local"}
    return {**plain, "inputs": canonical(node.inputs), "needs": dict(node.needs)}


def _identity(options: Options, sources: Sources, outputs: Path) -> str:
    """A digest of all that the nodes of a request can depend on."""
    device = gpu()
    return digest(
        {
            "options": {name: value for name, value in asdict(options).items() if name != "jobs"},
            "sources": asdict(sources),
            "gpu": device,
            "bf16": None if device else bf16_gain(outputs) >= GAIN_THAT_PAYS,
            "hardware": hardware("cpu"),
            "versions": {package: _version(package) for package in PACKAGES},
            "python": platform.python_version(),
            "code": _code(),
        }
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _code() -> str:
    """SHA-256 over the names and contents of all modules of the project."""
    seen = hashlib.sha256()
    for package in PROJECT:
        for file in sorted((ROOT / package).rglob("*.py")):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            seen.update(f"{file.relative_to(ROOT).as_posix()} {content}\n".encode())
    return seen.hexdigest()
