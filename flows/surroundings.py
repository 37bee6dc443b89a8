"""What of its surroundings a run lets in: none of what would change the servers that are its own.

A shell has settings for other servers than ours: Prefect's, MLflow's, proxies, certificates. Here is what becomes of
them, as changes of an environment: a value, or None for a variable that goes.
"""

import getpass
import importlib.util
import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tasks.folders import is_address, named_path, outputs_folder, store_url

Changes = dict[str, str | None]

# Telemetry: https://docs.prefect.io/v3/concepts/telemetry, https://mlflow.org/docs/latest/community/usage-tracking,
# https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "true",
}

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
REFUSING = "http://127.0.0.1:9"  # the discard service, which nobody runs any more

# All that a server of ours needs to know. Everything else is for somebody else: settings of Prefect and MLflow, of the
# web server under both (WEB_CONCURRENCY), of OpenTelemetry, proxies, certificates.
FOR_SERVERS = re.compile(
    "PATH|HOME|USER|LOGNAME|SHELL|TZ|TMPDIR|TEMP|TMP|LANG|LANGUAGE|LC_.*|LOCALE_ARCHIVE|(LD|DYLD)_.*|VIRTUAL_ENV"
    "|PYTHON(PATH|HOME|USERBASE|NOUSERSITE|UTF8|DONTWRITEBYTECODE|PYCACHEPREFIX|HASHSEED|COERCECLOCALE)"
)


def for_a_server(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server of our own."""
    kept = {name: value for name, value in environ.items() if FOR_SERVERS.fullmatch(name)}
    return {**kept, "PYTHONWARNINGS": "ignore"}


def without(environ: Iterable[str], prefix: str) -> Changes:
    """No variable of a program: Prefect reads its settings in capitals and in small letters."""
    return {name: None for name in environ if name.upper().startswith(prefix)}


def direct_on_loopback(environ: Mapping[str, str]) -> Changes:
    """Nothing between us and a server on the loopback address; others are reached through the proxies, as before.

    Prefect's HTTP library reads all proxies and exceptions before it makes any request, and fails on what it cannot
    use. A proxy that it cannot use is therefore replaced by one that refuses: going past it, straight to a remote
    server, is what its user did not want.
    """
    # Where both spellings are set, Python's libraries take the small one.
    hosts = (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")
    excepted = ",".join(dict.fromkeys([*filter(None, map(_readable_host, hosts)), *LOOPBACK_NAMES]))
    changes: Changes = {"no_proxy": excepted, "NO_PROXY": excepted}
    for name in environ:
        if name.lower() in PROXIES and environ[name] and not usable_proxy(environ[name]):
            changes[name] = REFUSING
    key_log = environ.get("SSLKEYLOGFILE")
    if key_log and not _can_append(key_log):
        changes["SSLKEYLOGFILE"] = None  # Python opens it for every context, also where nothing is encrypted
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):  # opened likewise; without them the system's own are used
        if environ.get(name) and not os.path.exists(environ[name]):
            changes[name] = None
    return changes


def _readable_host(host: str) -> str:
    """An entry of ``NO_PROXY`` as all libraries read it, or "": brackets and networks of IPv6 are not."""
    host = host.strip().removeprefix("[").removesuffix("]")
    if re.fullmatch(r"\*|[*.]*[\w-]+(\.[\w-]+)*\.?(:\d+)?|[\d.]+/\d+", host, re.ASCII):
        return host
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        return ""


def usable_proxy(value: str) -> bool:
    """Whether the HTTP library can go through this proxy: SOCKS needs a package that is not always there."""
    import httpx  # only where there is a proxy

    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
    except (ValueError, httpx.InvalidURL):
        return False
    return proxy.url.scheme in ("http", "https") or importlib.util.find_spec("socksio") is not None


def _can_append(path: str) -> bool:
    try:
        with open(path, "a"):
            return True
    except OSError:
        return False


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine only."""
    with suppress(ValueError):
        host = urlsplit(url).hostname or ""
        return host in LOOPBACK_NAMES or re.fullmatch(r"127(\.\d+){3}", host) is not None
    return False


def change(changes: Mapping[str, str | None]) -> None:
    """Change the environment of this process."""
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# --- This process ----------------------------------------------------------------------------------------------


def settle_streams() -> None:
    """Standard streams that are open and take every character."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:  # the next file would be taken for a closed stream
        os.set_inheritable(handle, True)
    os.close(handle)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def settle() -> None:
    """For every command, once it is known where it writes.

    A home, a name for the user, no proxy on loopback, and no library that tells its makers of us.
    """
    try:
        Path.home()
    except RuntimeError:  # neither HOME nor an entry in the list of users: many packages keep something at home
        os.environ["HOME"] = str(outputs_folder() / "home")
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user-{os.getuid()}"
    change({**direct_on_loopback(os.environ), **QUIET})


def keep_prefect_in(folder: Path) -> None:
    """Before Prefect is imported where no server is named: it makes a home then, and else in the user's."""
    if not os.environ.get("PREFECT_API_URL"):
        ours = {"PREFECT_HOME": str(folder), "PREFECT_PROFILES_PATH": str(folder / "profiles.toml")}
        change({**without(os.environ, "PREFECT_"), **QUIET, **ours, "PREFECT_PLUGINS_ENABLED": "false"})


def work_in(folder: Path) -> None:
    """Work in a folder of our own: Prefect reads settings from .env, prefect.toml and pyproject.toml where it works.

    What the environment names from where we are is given its whole path first.
    """
    whole = {"CHAPTER_OUTPUTS": str(outputs_folder()), "CHAPTER_STORE": store_url()}
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    before, slashes, path = tracking.partition("sqlite:///")
    if tracking and not is_address(tracking):
        whole["MLFLOW_TRACKING_URI"] = str(named_path(tracking))
    elif slashes and not before and path and not path.startswith(("/", ":")):
        whole["MLFLOW_TRACKING_URI"] = f"sqlite:///{named_path(path)}"
    os.environ.update(whole)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
