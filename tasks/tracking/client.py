"""Opening MLflow: its import, its settings and its database."""

import getpass
import logging
import os
import platform
from typing import Any

# Short, because nobody waits for a tracking server; a user's own settings win.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def connect(uri: str) -> Any:
    """A client of a tracking server, or of a database that is made or brought up to date first."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for logger in ("mlflow", "alembic"):  # they tell of each migration
        logging.getLogger(logger).setLevel(logging.WARNING)
    client = MlflowClient(uri)
    try:
        client.search_experiments(max_results=1)
    except MlflowException as error:
        if "out-of-date database schema" not in str(error):
            raise
        from mlflow.store.db.utils import _upgrade_db, create_sqlalchemy_engine

        _upgrade_db(create_sqlalchemy_engine(uri))  # type: ignore[no-untyped-call]
        client = MlflowClient(uri)
    return client


def is_refusal(error: Exception) -> bool:
    """Whether the server understood and said no: trying again would not help."""
    code = getattr(error, "error_code", "")
    return code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")


def origin() -> dict[str, str]:
    """Who logs: the columns User and Source of the web interface, and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        user = "unknown"
    return {
        "mlflow.user": user,
        "mlflow.source.name": "chapter",
        "mlflow.source.type": "LOCAL",
        "host": platform.node(),
    }
