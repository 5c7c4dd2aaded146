"""Folders of links to a model's files under the names they are wanted by.

A repository of the hub has one such folder for a commit, and where its model has a safety checker
another with that. Both are links to the same downloads, so that the second costs no space, and who
wants no checker downloads none.
"""

import glob
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import quote

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.models.hub import HubRepo
from dreambooth.models.inventory import (
    INDEX,
    choose_checker,
    choose_files,
    read_index,
    require_index,
)
from dreambooth.models.layouts import Layout
from dreambooth.workspace.atomic import (
    disk_errors,
    link_or_copy,
    publish_dir_once,
    temporary_sibling,
    write_text,
)

COMMIT = re.compile(r"[0-9a-f]{40}")
# Of the errors that a hub gives which is out of reach, or forbidden.
_AWAY = ("HubUnreachable", "HubOffline")


class ReadyModels:
    """What is ready of one repository on a workspace."""

    def __init__(self, models: Path, repo: str, field: str, *, checked: bool) -> None:
        """With `checked`, a folder has the model's safety checker, where it has a usable one."""
        self._models, self._repo, self._field, self._checked = models, repo, field, checked
        self._folder = models / f"models--{repo.replace('/', '--')}" / "ready"

    def find(self, commit: str) -> Path | None:
        """The folder of `commit`, if all that is wanted is there."""
        plain, whole = self._folder / commit, self._with_checker(commit)
        if not self._checked:
            return next((folder for folder in (plain, whole) if folder.is_dir()), None)
        if whole.is_dir():
            return whole
        return plain if plain.is_dir() and not self._layout(plain).lists_checker else None

    def update(self, revision: str) -> tuple[str, Path]:
        """Makes the files of `revision` ready; the commit that it is, and their folder.

        Raises:
            UserError: If the hub does not have them, or not for this user, or they are no model.
            InfrastructureError: If the hub does not answer or the disk refuses.
        """
        repo = HubRepo(self._repo, revision, kind="model", field=self._field)
        note = self._folder / ".revisions" / quote(revision, safe="")
        try:
            commit, names = repo.list_files()
        except (InfrastructureError, UserError) as error:
            if error.reason not in _AWAY:
                raise
            # The commit that it was last time will do.
            known = note.read_text(encoding="utf-8").strip() if note.is_file() else revision
            if not COMMIT.fullmatch(known):
                raise
            if folder := self.find(known):
                return known, folder
            if (self._folder / known).is_dir():
                raise self._no_checker(error) from error
            raise
        folder = self.find(commit) or self._download(repo, commit, names)
        if commit != revision:
            write_text(note, f"{commit}\n")
        return commit, folder

    def _download(self, repo: HubRepo, commit: str, names: Collection[str]) -> Path:
        require_index(names, where=self._repo, field=self._field)
        layout = self._layout(repo.download(commit, [INDEX], self._models))
        files = choose_files(names, layout, where=self._repo, field=self._field)
        ready = self._folder / commit
        if self._checked and layout.lists_checker:
            # Also where it cannot be used: then this folder says that it was looked for.
            files |= choose_checker(names, layout, where=self._repo, field=self._field)
            ready = self._with_checker(commit)
        wanted = [glob.escape(source) for source in files.values()]
        publish_links(repo.download(commit, wanted, self._models), files, ready)
        return ready

    def _layout(self, folder: Path) -> Layout:
        text = (folder / INDEX).read_text(encoding="utf-8")
        return read_index(text, where=self._repo, field=self._field)

    def _with_checker(self, commit: str) -> Path:
        return self._folder / f"{commit}-checked"

    def _no_checker(
        self, error: InfrastructureError | UserError
    ) -> InfrastructureError | UserError:
        return type(error)(
            f"the safety checker of the model {self._repo} is not on this workspace yet, and the "
            "hub is out of reach",
            field=f"{self._field}.safetyChecker",
            remedy="Run once with a network and without HF_HUB_OFFLINE, or set it to disabled.",
            reason=error.reason,
        )


def publish_links(source: Path, files: Mapping[str, str], ready: Path) -> None:
    """Makes `ready` a folder of links to the files of `source`, by the name they are wanted under.

    Raises:
        InfrastructureError: If the disk refuses.
    """
    if ready.is_dir():
        return
    temporary = temporary_sibling(ready)
    try:
        with disk_errors(ready):
            for target, name in files.items():
                (temporary / target).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy((source / name).resolve(), temporary / target)
        # Another job may be first with the very same content, and already read it.
        publish_dir_once(temporary, ready)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
