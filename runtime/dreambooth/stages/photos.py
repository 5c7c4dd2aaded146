"""Stage 1: fetch the photos, refuse what cannot be used, make the rest upright RGB."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from dreambooth.photos import fetch, prepare
from dreambooth.pipeline.context import StageContext, StageResult
from dreambooth.pipeline.progress import StageName
from dreambooth.workspace.atomic import publish_dir, temporary_sibling
from dreambooth.workspace.digest import file_digest


class PhotosStage:
    """Photos as the later stages use them, and a report on each."""

    name = StageName.PHOTOS

    def inputs(self, context: StageContext) -> dict[str, Any]:
        """The source; for a folder the files in it too, because people swap photos in place."""
        return {
            "source": context.job.manifest["spec"]["subject"]["photos"],
            "files": _listing(context),
        }

    def intact(self, context: StageContext, outputs: dict[str, Any]) -> bool:
        """All accepted photos are there with their digests."""
        return all(
            (context.folder.photos / photo["file"]).is_file()
            and file_digest(context.folder.photos / photo["file"]) == photo["digest"]
            for photo in outputs["photos"]
        )

    def run(self, context: StageContext) -> StageResult:
        """Fetches into a temporary folder, prepares beside it, publishes once."""
        final = context.folder.photos
        originals = temporary_sibling(final)
        prepared = temporary_sibling(final)
        try:
            files = fetch(
                context.job.subject.photos,
                workspace=context.workspace.root,
                manifest_dir=context.job.manifest_dir,
                destination=originals,
                mounts=_mounts(),
            )
            context.progress(0, len(files), "photos")
            report = prepare(files, prepared)
            publish_dir(prepared, final)
        finally:
            shutil.rmtree(originals, ignore_errors=True)
            shutil.rmtree(prepared, ignore_errors=True)
        accepted = [
            {"file": file.name, "digest": file_digest(file)} for file in sorted(final.glob("*.png"))
        ]
        context.progress(len(accepted), len(accepted), "photos")
        details = report.to_json()
        for warning in details.get("warnings", []):
            context.warn(warning)
        return StageResult({"photos": accepted, "report": details})


def photo_files(context: StageContext) -> list[Path]:
    """The accepted photos, in order."""
    photos = context.outputs[StageName.PHOTOS]["photos"]
    return [context.folder.photos / photo["file"] for photo in photos]


def _listing(context: StageContext) -> list[list[str]]:
    path = context.job.subject.photos.path
    if path is None:
        return []
    for root in (context.workspace.root, context.job.manifest_dir):
        folder = root / path
        # Fetching says better what cannot be read, and why.
        with contextlib.suppress(OSError):
            if folder.is_dir():
                files = sorted(file for file in folder.iterdir() if file.is_file())
                return [[file.name, file_digest(file)] for file in files]
    return []


def _mounts() -> Path | None:
    """Where a cluster mounts ConfigMaps and Secrets; None on a machine of one's own."""
    mounts = os.environ.get("DREAMBOOTH_MOUNTS")
    return Path(mounts) if mounts else None
