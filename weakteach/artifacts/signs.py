"""Signs: files by which processes tell others how far they are."""

from dataclasses import dataclass

from weakteach.artifacts.store import Store


@dataclass(frozen=True)
class Sign:
    """A file of the store that is there or not, and holds nothing."""

    store: Store
    path: str

    def put(self) -> None:
        self.store.write(self.path, b"")

    def take(self) -> None:
        """Away, if it is there."""
        if self.is_there:
            self.store.filesystem.delete_file(self.path)

    @property
    def is_there(self) -> bool:
        return bool(self.store.filesystem.get_file_info(self.path).is_file)
