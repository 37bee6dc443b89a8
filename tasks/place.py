"""Where steps work. Apart from them, so that who only looks at what is stored needs no Prefect."""

from dataclasses import dataclass
from pathlib import Path

from tasks.cache.store import Store


@dataclass(frozen=True)
class Place:
    """Where a step works: the store's URL, a folder of this machine for progress and caches, and the run's name.

    ``shared``: this is a worker, and others on other machines may want the same step.
    """

    store: str
    outputs: str
    run: str = "run"
    shared: bool = False

    @property
    def progress(self) -> Path:
        """Where the steps of this run tell how far they are."""
        return Path(self.outputs) / "progress" / self.run

    @property
    def folder(self) -> Path:
        """For locks and checkpoints: the store if that is a folder, so that all who share it share them, too."""
        return self.open_store().local or Path(self.outputs)

    @property
    def shares_steps(self) -> bool:
        """Whether other machines may want the same step: those of a pool, and all that see a store elsewhere."""
        return self.shared or self.open_store().local is None

    @property
    def syntax(self) -> Path:
        """What is known of the project's syntax trees; see ``tasks.cache.keys.syntax_kept_in``."""
        return Path(self.outputs) / "syntax.json"

    @property
    def compared(self) -> Path:
        """Of which files the SHA-256 has been compared; see ``tasks.cache.compared``."""
        return Path(self.outputs) / "compared.json"

    @property
    def compiled(self) -> Path:
        """What PyTorch has compiled for a GPU, for all processes; see ``tasks.gpu``."""
        return Path(self.outputs) / "compiled"

    def open_store(self) -> Store:
        """The store, with a cache for its blobs if it is remote."""
        return Store(self.store, cache=Path(self.outputs) / "blobs")
