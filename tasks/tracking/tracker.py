"""MLflow: one run per trained model and per exercise, nested under one per chapter.

Tracking never costs a run. Whatever cannot be delivered within seconds goes to an outbox of JSON lines, is
delivered with the next run, and is announced once. A model that was taken from the store is linked to the run that
trained it: runs carry their step's key in the tag ``step_key``, and an index beside the database knows them
without asking MLflow.

MLflow takes two seconds to import, so it is imported when something is logged.
"""

import contextlib
import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from tasks.cache.urls import without_credentials
from tasks.tracking import runs
from tasks.tracking.artifacts import follow
from tasks.tracking.client import connect, is_refusal
from tasks.tracking.documents import Document, Files, exercise_document, named, training_document
from tasks.tracking.outbox import Outbox, write_json
from tasks.tracking.pages import run_page, runs_page

logger = logging.getLogger(__name__)

EXPERIMENT = "chapter-21"
MARK = "chapter.mark"  # a tag of the experiment: another database counts from 1 again
EMPTY: Mapping[str, Any] = {"experiment": "", "runs": {}}
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # its page opens on runs, and not on traces
    "mlflow.note.content": (
        "All exercises of a chapter on decoder-only language models. One run per chapter; under it one for each "
        "trained model (`tags.kind = 'model'`) and each exercise (`tags.kind = 'exercise'`)."
    ),
}
LISTED_SECONDS, SPARE_SECONDS = 7 * 86_400.0, 3_600.0  # between two listings of all runs; what clocks may differ by
COOL_DOWN = 60.0  # seconds without a further try after a failure


class Tracker:
    """What this project says to MLflow.

    Args:
        outputs: the folder for everything that a run writes; the default database is ``mlflow/mlflow.db`` in it.
        uri: tracking server; the default is ``MLFLOW_TRACKING_URI``, or else that database.
        ui: address under which the local database is shown, see ``chapter ui``.
    """

    def __init__(self, outputs: Path, uri: str | None = None, *, ui: str = "http://127.0.0.1:5000") -> None:
        self.folder = Path(outputs).resolve() / "mlflow"
        self.database = self.folder / "mlflow.db"
        self._own_uri = f"sqlite:///{quote(str(self.database), safe=' +/')}"  # as SQLAlchemy writes it
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or self._own_uri
        self.ui = without_credentials(self.uri).rstrip("/") if self.uri.startswith("http") else ui
        slug = re.sub(r"\W+", "-", without_credentials(self.uri)).strip("-")[-80:]
        self.outbox = Outbox(self.folder / f"outbox-{slug}.jsonl")
        self._index_file = self.folder / f"index-{slug}.json"
        self._index: dict[str, Any] | None = None
        self._client: Any = None
        self._retry_at = 0.0
        self._warned = False
        self._chapter: str | None = None
        self._links: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._verdict: dict[str, Any] = {}
        self._guard = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection, so that a tracker can be sent to another process."""
        return {name: value for name, value in self.__dict__.items() if name != "_guard"} | {"_client": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._guard = threading.RLock()

    # --- What is logged ---

    @contextlib.contextmanager
    def chapter(self, *, profile: str, tags: Mapping[str, str] | None = None, name: str | None = None) -> Iterator[str]:
        """The run of a whole chapter: the parent of what is logged inside.

        It is opened in the background, since importing MLflow and making its database take seconds. What is
        given is a name for it that ``log_training`` and ``log_exercise`` understand, also in other processes;
        ``run_of`` turns it into MLflow's. If a chapter of this ``name``, which begins with "chapter-", is there
        already, it is taken up again.
        """
        document: Document = {
            "kind": "chapter",
            "key": name or f"chapter-{uuid.uuid4().hex}",
            "name": f"chapter ({profile})",
            "tags": {"kind": "chapter", "profile": profile, **(tags or {})},
            "start": time.time(),
        }
        name = str(document["key"])
        self._chapter, self._links, self._failures, self._verdict = name, {}, {}, {}
        opening = threading.Thread(target=self._deliver, args=(document,), daemon=True, name="mlflow-open")
        opening.start()
        status = "FAILED"
        try:
            yield name
            status = "FAILED" if self._failures else "FINISHED"
        finally:
            opening.join()
            ended = {"links": dict(self._links), "failures": dict(self._failures), "verdict": self._verdict}
            self._chapter = None
            self._deliver({"kind": "end", "run": name, "status": status, "end": time.time(), **ended})

    def fail(self, title: str, error: str) -> None:
        """Note on the open chapter's run that a step failed, and why: that makes the chapter a failed one."""
        self._failures[title] = error

    def conclude(
        self, sentence: str, *, params: Mapping[str, Any], metrics: Mapping[str, float], files: Mapping[str, Path]
    ) -> None:
        """What the open chapter came to, for its run: the verdict, numbers, and the report's files by name."""
        self._verdict = {
            "sentence": sentence,
            "params": dict(params),
            "metrics": dict(metrics),
            "files": named(files),
        }

    def log_training(
        self,
        parent: str | None,
        key: str,
        recipe: Mapping[str, Any],
        record: Mapping[str, Any],
        files: Files = (),
        tags: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> str | None:
        """One trained model; returns its run, or None if that waits in the outbox.

        Args:
            parent: what ``chapter`` gave; None is the chapter that is open, if one is.
            key: of the step that trained it.
            recipe: plain JSON; its leaves become parameters.
            record: ``history`` and ``evaluations`` (columns of equal length, one of them ``step``), ``parameters``,
                ``training_seconds``, ``tokens_per_second``, and, for bits per byte, ``validation_tokens`` and
                ``validation_bytes``.
            files: kept as artifacts, see ``artifacts.attach``; a mapping gives their names there (``model``,
                ``tokenizer``).
            tags: such as profile, device, fingerprint.
            data: the text that it was trained on, as ``name``, ``digest`` and ``source``.
        """
        return self._log(parent, training_document(key, recipe, record, named(files), tags or {}, data))

    def log_exercise(
        self,
        parent: str | None,
        key: str,
        result: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        texts: Mapping[str, str] | None = None,
        models: Sequence[str] = (),
    ) -> str | None:
        """One exercise's result (``reports.types.Result`` as JSON): metrics, checks, curves, the JSON itself.

        ``texts`` are kept as artifacts, too: name to content, such as its tables as CSV. ``models`` are the keys of the
        steps that trained the models it used: they are inputs of the exercise's run.
        """
        return self._log(parent, exercise_document(key, result, texts or {}, tags or {}, models))

    def link(self, parent: str | None, key: str, title: str) -> None:
        """Note on the open chapter's run that a step was taken from the store, and which run made it."""
        run_id = self.run_of(key)
        if run_id is not None:
            self._links[title] = run_id

    # --- What is known ---

    def run_of(self, key: str) -> str | None:
        """The run that logged a step, or None. Asks the local index, not the server."""
        found = self._known()["runs"].get(key)
        return str(found) if found else None

    def url(self, run_id: str | None) -> str | None:
        """Where the web interface shows a run."""
        experiment = self._known()["experiment"]
        return run_page(self.ui, experiment, run_id) if run_id and experiment else None

    def runs_url(self) -> str:
        """Where the web interface shows all runs."""
        return runs_page(self.ui, self._known()["experiment"])

    def landing(self) -> str:
        """``runs_url`` by the word of the database, in which the experiment is made if it is not there yet."""
        _, experiment = self._connection()
        return runs_page(self.ui, experiment)

    def flush(self) -> int:
        """Deliver what waits in the outbox; returns how many documents are left."""
        with self._guard:
            self._retry_at = 0.0
            try:
                self._empty_outbox()
            except Exception as error:
                self._failed(error)
            return len(self.outbox)

    def _known(self) -> dict[str, Any]:
        if self._index is None:
            if self.uri == self._own_uri and not self.database.exists():
                return dict(EMPTY, runs={})  # the database was deleted, and what the index says with it
            self._index = self._kept()
        return self._index

    def _kept(self) -> dict[str, Any]:
        """The index as it is on the disk; an empty one where there is none that is whole."""
        try:
            found = json.loads(self._index_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            found = None
        times = [found.get(name, 0.0) for name in ("listed", "seen")] if isinstance(found, dict) else [None]
        whole = all(isinstance(when, int | float) for when in times) and isinstance(found.get("runs"), dict)
        return {**EMPTY, **found} if whole else dict(EMPTY, runs={})

    # --- Delivery ---

    def _log(self, parent: str | None, document: Document) -> str | None:
        document["parent"] = parent or self._chapter
        return self._deliver(document)

    def _deliver(self, document: Document) -> str | None:
        with self._guard:
            if time.monotonic() < self._retry_at:
                self.outbox.add(document)
                return None
            try:
                self._empty_outbox()
                return self._send(document)
            except Exception as error:  # a tracking server may fail in any way: the work that it hears of is done
                self.outbox.add(document)
                self._failed(error)
                return None

    def _failed(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + COOL_DOWN
        if not self._warned:
            self._warned = True
            reason = without_credentials(" ".join(str(error).split()))[:160]
            logger.warning(
                "MLflow at %s cannot be used now (%s); what is logged waits in %s",
                without_credentials(self.uri),
                reason,
                self.outbox.path,
            )

    def _empty_outbox(self) -> None:
        if not self.outbox:
            return
        self._connection()
        self.outbox.deliver(self._send, is_refusal=is_refusal)

    def _send(self, document: Document) -> str | None:
        client, experiment = self._connection()
        if document["kind"] == "end":
            chapter = runs.find(client, experiment, document["run"])
            if chapter is not None:
                runs.end(client, experiment, chapter, document, self.ui)
            return None
        with FileLock(self.folder / "send.lock"):
            finished = runs.find(client, experiment, document["key"])
            if finished is None:
                finished = runs.create(client, experiment, document, self._parent(client, experiment, document))
            elif document["kind"] == "chapter":
                client.update_run(finished, status="RUNNING")
            else:
                self._adopt(client, experiment, finished, document)
            self._remember({document["key"]: finished})
        return finished

    def _parent(self, client: Any, experiment: str, document: Document) -> str | None:
        """MLflow's id of the chapter that a document belongs to, if that chapter is known by now."""
        parent: str | None = document.get("parent")
        if parent and parent.startswith("chapter-"):
            return self.run_of(parent) or runs.find(client, experiment, parent)
        return parent

    def _adopt(self, client: Any, experiment: str, run_id: str, document: Document) -> None:
        """Nest a run that is there already, but was logged before its chapter could be found."""
        if runs.PARENT not in client.get_run(run_id).data.tags:
            parent = self._parent(client, experiment, document)
            if parent:
                client.set_tag(run_id, runs.PARENT, parent)

    # --- Connection ---

    def _connection(self) -> tuple[Any, str]:
        """The client and the experiment's id; the database is made, or brought up to date, by one process at a time."""
        if self._client is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "open.lock"):
                if self.uri == self._own_uri:
                    follow(self.database, EXPERIMENT, self._artifacts)
                client = connect(self.uri)
                self._client = client, self._experiment(client)
            self._refresh(*self._client)
        return self._client  # type: ignore[no-any-return]

    @property
    def _artifacts(self) -> str:
        """Where our own database says that artifacts are."""
        return (self.folder / "artifacts").as_uri()

    def _experiment(self, client: Any) -> str:
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            local = self.uri == self._own_uri
            place = self._artifacts if local else None
            self._mark = uuid.uuid4().hex
            return str(client.create_experiment(EXPERIMENT, place, {**EXPERIMENT_TAGS, MARK: self._mark}))
        self._mark = found.tags.get(MARK) or uuid.uuid4().hex
        if MARK not in found.tags:
            client.set_experiment_tag(found.experiment_id, MARK, self._mark)
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        for name in EXPERIMENT_TAGS.keys() - found.tags.keys():  # made by an older version
            client.set_experiment_tag(found.experiment_id, name, EXPERIMENT_TAGS[name])
        return str(found.experiment_id)

    def _refresh(self, client: Any, experiment: str) -> None:
        """The index from the server's own word: other machines log there as well, and people delete runs.

        All runs are listed once a week only; else those that ended since, which are few. One that is missed, since it
        ended long before it could be delivered, is found by its key when it would be logged again.
        """
        known, now = self._known(), time.time()
        same = (known["experiment"], known.get("mark")) == (experiment, self._mark)
        if same and now - known.get("listed", 0.0) < LISTED_SECONDS:
            gone = runs.deleted_runs(client, experiment)
            found = known["runs"] | runs.finished_runs(client, experiment, known["seen"] - SPARE_SECONDS)
            found = {key: run for key, run in found.items() if run not in gone}
            self._index = {**known, "runs": found, "seen": now}
        else:
            found = runs.finished_runs(client, experiment)
            self._index = {"experiment": experiment, "mark": self._mark, "runs": found, "listed": now, "seen": now}
        write_json(self._index_file, self._known())

    def _remember(self, found: Mapping[str, str]) -> None:
        """Add runs to the index, beside those that other processes have added meanwhile."""
        known = self._known()
        known["runs"] |= found
        with FileLock(self.folder / "index.lock"):
            kept = self._kept()
            if (kept["experiment"], kept.get("mark")) == (known["experiment"], known.get("mark")):
                known["runs"] = kept["runs"] | known["runs"]
            write_json(self._index_file, known)
