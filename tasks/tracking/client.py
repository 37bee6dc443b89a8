"""Opening MLflow: its import, its settings and its database."""

import getpass
import logging
import os
import platform
from typing import Any
from urllib.parse import urlsplit

# Short, because nobody waits for a tracking server; a user's own settings win.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # of every run that ends on a server, between lines of ours
}


def import_mlflow(uri: str = "") -> None:
    """Import MLflow, which takes a second, and two for a database: for those who have them before they ``connect``."""
    for name, value in SETTINGS.items():  # it reads them when it is imported
        os.environ.setdefault(name, value)
    import mlflow.tracking

    if _is_database(uri):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def connect(uri: str) -> Any:
    """A client of a tracking server, or of a database that is made or brought up to date first."""
    import_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for logger in ("mlflow", "alembic"):  # they tell of each migration
        logging.getLogger(logger).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # of what fails, the tracker tells
    try:
        client = MlflowClient(uri)  # refuses a database of an older version
        client.search_experiments(max_results=1)
    except MlflowException:
        if not _upgrade(uri):
            raise
        client = MlflowClient(uri)
    return client


def _upgrade(uri: str) -> bool:
    """Bring a database's schema up to date; False if it was up to date already, or ``uri`` names no database."""
    from mlflow.store.db import utils

    if not _is_database(uri):
        return False
    engine = utils.create_sqlalchemy_engine(uri)  # type: ignore[no-untyped-call]
    if utils._get_schema_version(engine) == utils._get_latest_schema_revision():  # type: ignore[no-untyped-call]
        return False
    utils._upgrade_db(engine)  # type: ignore[no-untyped-call]
    return True


def _is_database(uri: str) -> bool:
    from mlflow.store.db.db_types import DATABASE_ENGINES

    return urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES  # "mysql+pymysql" is one, too


def is_refusal(error: Exception) -> bool:
    """Whether the server understood and said no, or what is to be said is no document: trying again would not help."""
    if isinstance(error, KeyError | TypeError | AttributeError):
        return True
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
