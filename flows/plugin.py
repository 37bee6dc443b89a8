"""``prefect deployment run full-chapter`` for ``prefect deployment run full-chapter/full-chapter``.

Prefect calls ``setup_environment`` of every entry point in the group ``prefect.plugins`` when it is imported, before
its command line reads its arguments, if ``[tool.prefect.plugins] enabled = true`` stands in the pyproject.toml of the
working directory or ``PREFECT_PLUGINS_ENABLED=true`` in the environment. In other folders without either of them
the long form is needed. https://docs.prefect.io/v3/advanced/plugins
"""

import sys
from pathlib import Path

from prefect.plugins import register_hook

FLAGS = {"--watch", "--no-watch", "--help"}  # options of ``prefect deployment run`` that take no value


@register_hook
def setup_environment(*, ctx: object) -> None:
    """Write out a bare deployment name on Prefect's command line; leave everything else alone."""
    program = Path(sys.argv[0]).stem if sys.argv else ""
    # For ``python -m prefect`` Python puts "-m" there until it has found the module.
    if program == "prefect" or (program == "-m" and "prefect" in sys.orig_argv):
        sys.argv[1:] = expanded(sys.argv[1:])


def expanded(arguments: list[str]) -> list[str]:
    """``deployment run NAME …`` with NAME/NAME for a NAME without a slash."""
    for command in ("deployment", "deployments"):
        if command in arguments:
            start = arguments.index(command) + 1
            break
    else:
        return arguments
    if arguments[start : start + 1] != ["run"]:
        return arguments
    for place in range(start + 1, len(arguments)):
        word, before = arguments[place], arguments[place - 1]
        is_value = before.startswith("-") and "=" not in before and before not in FLAGS
        if word.startswith("-") or is_value:
            continue
        name = word if "/" in word else f"{word}/{word}"
        return [*arguments[:place], name, *arguments[place + 1 :]]
    return arguments
