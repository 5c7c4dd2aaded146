"""Brings the original files to the workspace, wherever they are."""

import shutil
from pathlib import Path

from dreambooth.api.job import Photos
from dreambooth.errors import UserError
from dreambooth.photos.sources.base import PhotoSource
from dreambooth.photos.sources.hub import HubSource
from dreambooth.photos.sources.mount import MountSource
from dreambooth.photos.sources.path import PathSource
from dreambooth.photos.sources.uri import uri_source
from dreambooth.workspace.atomic import disk_errors, publish_dir, temporary_sibling

FIELD = "spec.subject.photos"


def fetch(
    photos: Photos,
    *,
    workspace: Path,
    manifest_dir: Path,
    destination: Path,
    mounts: Path | None,
) -> list[Path]:
    """Copies the original files into the folder `destination`, all of them or none.

    Args:
        photos: Where they are; exactly one source is set.
        workspace: `path` is looked for here first,
        manifest_dir: and then here.
        destination: Made; replaced if it exists.
        mounts: Where the cluster mounts ConfigMaps and Secrets; None on a machine of one's own.

    Returns:
        The files, sorted by name.

    Raises:
        UserError: If there is nothing, too much, or no permission; names the field.
        InfrastructureError: If the network, a storage or the disk fails.
    """
    source = _source(photos, workspace=workspace, manifest_dir=manifest_dir, mounts=mounts)
    temporary = temporary_sibling(destination)
    try:
        with disk_errors(destination):
            temporary.mkdir(parents=True)
        source.fetch(temporary)
        publish_dir(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(file for file in destination.iterdir() if file.is_file())


def _source(
    photos: Photos, *, workspace: Path, manifest_dir: Path, mounts: Path | None
) -> PhotoSource:
    if photos.path is not None:
        return PathSource(photos.path, roots=(workspace, manifest_dir))
    if photos.hub is not None:
        return HubSource(photos.hub)
    if photos.uri is not None:
        return uri_source(photos.uri)
    if photos.config_map is not None:
        return MountSource(photos.config_map, kind="configMap", mounts=mounts)
    if photos.secret is not None:
        return MountSource(photos.secret, kind="secret", mounts=mounts)
    raise UserError(
        "there is no photo source",
        field=FIELD,
        remedy="Give exactly one photo source: path, hub, uri, configMap or secret.",
        reason="NoPhotos",
    )
