"""Signs: files by which processes tell others how far they are."""

from dataclasses import dataclass

from weakteach.artifacts.store import Store


@dataclass(frozen=True)
class Sign:
    """An empty file of the store. All that it tells is whether it exists."""

    store: Store
    path: str

    def put(self) -> None:
        self.store.write(self.path, b"")

    def take(self) -> None:
        """Delete the sign's file if it exists."""
        if self.is_there:
            self.store.filesystem.delete_file(self.path)

    @property
    def is_there(self) -> bool:
        return bool(self.store.filesystem.get_file_info(self.path).is_file)
