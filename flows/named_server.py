"""A Prefect server that somebody has named in ``PREFECT_API_URL``: whether it is one, before anything relies on it."""

import contextlib
import io
import json
import os
import re
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from flows.options import UsageError
from flows.shared_server import ServerError
from flows.surroundings import is_loopback
from tasks.cache.urls import without_credentials

ANSWER_SECONDS = 4


class NotThatServer(UsageError, ServerError):
    """The server that was named cannot be used; the text is for the person who named it."""


def check(api: str) -> None:
    """A quick look, before the slow imports: something at this address speaks as Prefect's API does.

    Raises:
        NotThatServer: nothing answers there, or something else does; says which, and what to do.
    """
    shown = f"PREFECT_API_URL {without_credentials(api)}"
    try:
        parts = urlsplit(api)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        well_formed = False
    if not well_formed:
        raise NotThatServer(f"{shown}: not an address; write it like http://127.0.0.1:4200/api, or unset it")
    answer = _health(api)
    if answer is True or answer == "refused":
        return
    if answer is None:
        raise NotThatServer(f"{shown}: nothing answers there; start that server, or unset it to use a local one")
    if _health(api.rstrip("/") + "/api") in (True, "refused"):
        raise NotThatServer(f"{shown}: this is Prefect's page, not its API; write {without_credentials(api)}/api")
    raise NotThatServer(f"{shown}: what answers there is not Prefect's API; correct it, or unset it to use a local one")


def _health(api: str) -> Any:
    """What ``/health`` answers: Prefect's API says ``true``.

    "refused" if it asks for a password or a certificate that is known only to Prefect's settings, "other" if it is
    something else, None if nothing answers.
    """
    # The loopback address is not for the proxies of the environment.
    handlers = [urllib.request.ProxyHandler({})] if is_loopback(api) else []
    try:
        with urllib.request.build_opener(*handlers).open(f"{api.rstrip('/')}/health", timeout=ANSWER_SECONDS) as reply:
            return True if json.loads(reply.read(1000)) is True else "other"
    except urllib.error.HTTPError as error:
        return "refused" if error.code in (401, 403) else "other"
    except urllib.error.URLError as error:
        return "refused" if isinstance(error.reason, ssl.SSLError) else None
    except ValueError:  # not JSON
        return "other"
    except OSError:
        return None


def import_prefect() -> None:
    """Prefect, with the user's own settings, which hold for the user's own server.

    Raises:
        UsageError: Prefect refuses one of them.
    """
    from pydantic import ValidationError

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it also prints what it then raises
            import prefect.context  # noqa: F401
    except ValidationError as error:
        first = error.errors()[0]
        # "LoggingSettings" has a field "level", the setting is PREFECT_LOGGING_LEVEL.
        group = re.findall("[A-Z]+(?![a-z])|[A-Z][a-z]+", error.title.removesuffix("Settings"))
        name = "_".join(str(part) for part in ("PREFECT", *group, *first["loc"])).upper()
        name = name.replace("PREFECT_PREFECT_", "PREFECT_")
        raise UsageError(
            f"{name} {first['input']}: {first['msg']}; correct it in the environment, a .env or prefect.toml file or "
            "Prefect's profile, or unset PREFECT_API_URL to use a local server"
        ) from error
    except (ValueError, OSError) as error:
        raise UsageError(
            f"Prefect cannot read its settings: {' '.join(str(error).split())}; correct them, or unset "
            "PREFECT_API_URL to use a local server"
        ) from error


def check_access(api: str) -> None:
    """A request as Prefect itself makes them, with the user's password, key, headers and certificates.

    Raises:
        NotThatServer: it is refused or fails.
    """
    import httpx
    from prefect.client.base import ServerType
    from prefect.client.orchestration import get_client

    shown = f"PREFECT_API_URL {without_credentials(api)}"
    try:
        with get_client(sync_client=True, httpx_settings={"timeout": ANSWER_SECONDS}) as client:
            client.request("GET", "/health")  # which a server of one's own answers without a password
            if client.server_type is not ServerType.CLOUD:
                client.request("GET", "/admin/version")
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise NotThatServer(
                f"{shown}: it wants another password (status {status}); set PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
            ) from error
        raise NotThatServer(f"{shown}: it answers with status {status}; look at its log, or unset it") from error
    except Exception as error:  # of the network, of proxies, of certificates: each library has errors of its own
        reason = without_credentials(" ".join(str(error).split())) or type(error).__name__
        certificate = os.environ.get("SSL_CERT_FILE")
        if isinstance(error, OSError) and certificate and not os.path.exists(certificate):
            raise NotThatServer(f"SSL_CERT_FILE {certificate}: there is no such file; correct or unset it") from error
        raise NotThatServer(f"{shown}: it cannot be reached ({reason}); correct it, or unset it") from error
