"""A storage that can be told to fail for a while, and a clock that nobody has to wait for."""

import errno
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from tasks.cache.objects import Objects
from tasks.cache.patience import Patience


class Clock:
    """Seconds that pass only when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.sleeps = 0.0, []  # type: tuple[float, list[float]]

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def busy() -> Exception:
    """What s3fs makes of a 503."""
    return OSError(errno.EBUSY, "Please reduce your request rate.")


class Flaky(MemoryFileSystem):
    """Fails as ``fault`` says, before anything is done; the class is told, since fsspec keeps its own instances."""

    protocol = "flaky"
    fault: Callable[[], Exception | None] = staticmethod(lambda: None)
    calls = 0

    def _meet(self) -> None:
        type(self).calls += 1
        error = type(self).fault()
        if error is not None:
            raise error

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._meet()
        return super().cat_file(path, *arguments, **options)

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        self._meet()
        super().get_file(rpath, lpath, **options)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self._meet()
        super().put_file(lpath, rpath, **options)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        self._meet()
        super().pipe_file(path, value, mode=mode, **options)

    def info(self, path: str, **options: Any) -> Any:
        self._meet()
        return super().info(path, **options)

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._meet()
        return super().find(path, *arguments, **options)

    def rm_file(self, path: str) -> None:
        self._meet()
        super().rm_file(path)


fsspec.register_implementation("flaky", Flaky, clobber=True)


def flaky_objects(name: str, clock: Clock) -> Iterator[Objects]:
    """What a fixture gives: an empty store of this storage, which is as it was afterwards."""
    Flaky.fault = staticmethod(lambda: None)
    yield Objects(f"flaky://{name}", Patience(600, clock.sleep, clock))
    Flaky.fault = staticmethod(lambda: None)
    Flaky.store.clear()
