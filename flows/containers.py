"""Base job templates of work pools whose runs are containers: ``containers/*.json`` are written from here.

    python -m flows.containers --write
    prefect work-pool create gpu --type kubernetes --base-job-template containers/kubernetes-gpu.json

Each is Prefect's own template of that type with our defaults, so that a worker of Prefect's understands it: the image
of ``containers/Dockerfile``, the heartbeats that ``flows/recovery.py`` counts on, memory, GPUs. What differs from site
to site (servers, the store, credentials) is left to whoever makes the pool: see docs/deploying.md.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.servers import HEARTBEAT_SECONDS

FOLDER = Path(__file__).parent.parent / "containers"
IMAGE = "minigpt-chapter:latest"
MEMORY = {"cpu": 8, "gpu": 16}  # GiB of a container; at laptop size fine-tuning 135 M parameters takes six
ENVIRONMENT = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def prefect_templates() -> dict[str, dict[str, Any]]:
    """Prefect's own base job template of each type, from the list that every server of this version shows."""
    import prefect

    views = Path(prefect.__file__).parent / "server" / "api" / "collections_data" / "views"
    workers = json.loads((views / "aggregate-worker-metadata.json").read_text(encoding="utf-8"))
    types = {"docker": "prefect-docker", "kubernetes": "prefect-kubernetes"}
    return {type: workers[package][type]["default_base_job_configuration"] for type, package in types.items()}


def template(type: str, pool: str) -> dict[str, Any]:
    """The base job template of a pool, "cpu" or "gpu", of type "docker" or "kubernetes"."""
    found: dict[str, Any] = json.loads(json.dumps(prefect_templates()[type]))
    variables: dict[str, Any] = found["variables"]["properties"]
    env = ENVIRONMENT | ({"NVIDIA_VISIBLE_DEVICES": "all"} if (type, pool) == ("docker", "gpu") else {})
    defaults: dict[str, Any] = {"image": IMAGE, "env": env}
    if type == "docker":
        # As much with swap as without: a container that has to swap trains no more, and nobody is told.
        size = f"{MEMORY[pool]}g"
        defaults |= {"auto_remove": True, "mem_limit": size, "memswap_limit": size, "image_pull_policy": "IfNotPresent"}
    else:
        size = f"{MEMORY[pool]}Gi"
        defaults |= {"memory_request": size, "memory_limit": size, "finished_job_ttl": 3_600}
        if pool == "gpu":
            variables["gpus"] = {
                "title": "GPUs",
                "description": "GPUs of a run; a chapter's step uses one.",
                "default": 1,
                "type": "integer",
            }
            [container] = found["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"]
            container["resources"]["limits"]["nvidia.com/gpu"] = "{{ gpus }}"
    for name, value in defaults.items():
        variables[name]["default"] = value
    return found


def files() -> Mapping[Path, str]:
    """What each file has to hold."""
    return {
        FOLDER / f"{type}-{pool}.json": json.dumps(template(type, pool), indent=2) + "\n"
        for type in ("docker", "kubernetes")
        for pool in MEMORY
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or say which of them are not as they should be; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flows.containers", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write them")
    write = parser.parse_args(arguments).write
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if write:
            path.write_text(files()[path], encoding="utf-8")
        print(f"{'written' if write else 'not as flows/containers.py says'}: {path}")
    return 0 if write or not stale else 1


if __name__ == "__main__":
    sys.exit(main())
