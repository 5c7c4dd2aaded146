"""Photos in a ConfigMap or Secret that the cluster mounts as a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.photos.sources.folder import check_inside, copy_folder


@dataclass(frozen=True)
class MountSource:
    """The folder `<mounts>/<kind>/<name>`: a key a file, and links within (`..data`)."""

    name: str
    kind: Literal["configMap", "secret"]
    mounts: Path | None

    def fetch(self, destination: Path) -> None:
        """Copies the mounted files; see `PhotoSource`."""
        field = f"spec.subject.photos.{self.kind}"
        title = "ConfigMap" if self.kind == "configMap" else "Secret"
        if self.mounts is None:
            raise UserError(
                f"the photos are in a {title}, which only a cluster has",
                field=field,
                remedy="Run the job on the cluster, or copy the photos into a folder and give "
                "photos.path.",
                reason="PhotosNotFound",
            )
        if not (self.mounts / self.kind / self.name).is_dir():
            raise InfrastructureError(
                f"{title} {self.name} is not mounted at {self.mounts / self.kind / self.name}",
                field=f"{field}.name",
                remedy="Look at the events of the job's pods, and run again.",
                reason="PhotosNotMounted",
            )
        where = f"{title} {self.name}"
        folder = check_inside(
            self.mounts / self.kind / self.name, self.mounts, where=where, field=field
        )
        copy_folder(folder, destination, within=folder, where=where, field=field)
