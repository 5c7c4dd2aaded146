"""Photos in a folder of the workspace, or beside the manifest."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dreambooth.errors import UserError
from dreambooth.photos.sources.folder import check_inside, copy_folder, there_is

FIELD = "spec.subject.photos.path"


@dataclass(frozen=True)
class PathSource:
    """A folder relative to the first of `roots` that has it."""

    path: str
    roots: tuple[Path, ...]

    def fetch(self, destination: Path) -> None:
        """Copies the folder's files; see `PhotoSource`."""
        root = self._root()
        folder = check_inside(root / self.path, root, where=self.path, field=FIELD)
        if not folder.is_dir():
            raise UserError(
                f"{self.path} is a file",
                field=FIELD,
                remedy="Give the folder that the photos are in.",
                reason="PhotosNotFound",
            )
        copy_folder(folder, destination, within=root, where=self.path, field=FIELD)

    def _root(self) -> Path:
        relative = PurePosixPath(self.path)
        if relative.is_absolute() or ".." in relative.parts:
            raise UserError(
                f"{self.path} leads out of the workspace",
                field=FIELD,
                remedy='Give a path relative to the workspace or to the manifest, without "..".',
                reason="PathEscapes",
            )
        for root in self.roots:
            if there_is(root / relative, where=self.path, field=FIELD):
                return root
        looked = " nor in ".join(dict.fromkeys(str(root) for root in self.roots))
        raise UserError(
            f"there is no folder {self.path}, neither in {looked}"
            if " nor in " in looked
            else f"there is no folder {self.path} in {looked}",
            field=FIELD,
            remedy="Put the photos into that folder, or correct the path.",
            reason="PhotosNotFound",
        )
