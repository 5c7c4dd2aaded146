"""Photos of a data set on the Hugging Face hub."""

import glob
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dreambooth.api.job import HubPhotos
from dreambooth.errors import UserError
from dreambooth.models.hub import HubRepo
from dreambooth.photos.limits import check_count, check_sizes, is_hidden, is_picture_name
from dreambooth.workspace.atomic import disk_errors

FIELD = "spec.subject.photos.hub"


@dataclass(frozen=True)
class HubSource:
    """The pictures directly in a folder of a data set, at a revision."""

    photos: HubPhotos

    def fetch(self, destination: Path) -> None:
        """Downloads the pictures alone; see `PhotoSource`."""
        wanted = self.photos
        repo = HubRepo(wanted.repo, wanted.revision, kind="dataset", field=FIELD)
        commit, names = repo.list_files()
        folder = PurePosixPath(wanted.path or "")
        pictures = [
            name
            for name in names
            if PurePosixPath(name).parent == folder
            and is_picture_name(name)
            and not is_hidden(PurePosixPath(name).name)
        ]
        where = f"{wanted.repo}/{folder}" if wanted.path else wanted.repo
        if not pictures:
            raise self._no_pictures(where, names)
        check_count(pictures, where=where, field=FIELD)
        sizes = {name: names[name] for name in pictures}
        check_sizes(sizes, where=where, field=FIELD)
        # In here and thrown away with it: the job keeps the prepared photos.
        cache = destination / ".hub"
        snapshot = repo.download(commit, [glob.escape(name) for name in pictures], cache)
        for name in pictures:
            target = destination / PurePosixPath(name).name
            with disk_errors(target):
                shutil.copyfile(snapshot / name, target)
        shutil.rmtree(cache)

    def _no_pictures(self, where: str, names: Collection[str]) -> UserError:
        folders = sorted({str(PurePosixPath(n).parent) for n in names if is_picture_name(n)})
        tables = [name for name in names if name.endswith((".parquet", ".arrow"))]
        if folders:
            remedy = f"Set photos.hub.path to a folder that has some, such as {folders[0]}."
            if folders[0] == ".":
                remedy = "Leave photos.hub.path out: they are in the top folder."
        elif tables:
            remedy = "It keeps them in tables (Parquet); save them as picture files first."
        else:
            remedy = "Name a data set with picture files."
        return UserError(
            f"there are no photos in {where}",
            field=f"{FIELD}.path",
            remedy=remedy,
            reason="NoPhotos",
        )
