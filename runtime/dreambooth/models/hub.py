"""The Hugging Face hub: what a repository holds, its files, and what a failure means.

The library goes on with broken transfers as long as it runs, checks sizes and keeps files that are
finished; here its exceptions become messages. The token comes from HF_TOKEN alone, never from a
file of some login, so that a run depends on nothing but its environment. HF_ENDPOINT names another
hub.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreambooth.errors import DreamBoothError, InfrastructureError, UserError
from dreambooth.workspace.atomic import disk_errors

DEFAULT_ENDPOINT = "https://huggingface.co"
# Seconds to wait for an answer about a repository.
_TIMEOUT = 30.0
# A download that goes on writes all the time.
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class HubRepo:
    """A repository at a revision.

    Attributes:
        repo: `owner/name`.
        revision: Commit, tag or branch.
        kind: What it holds.
        field: Of the manifest, e.g. `spec.model`; errors name it or its `repo` and `revision`.
    """

    repo: str
    revision: str
    kind: Literal["model", "dataset"]
    field: str

    def list_files(self) -> tuple[str, dict[str, int]]:
        """The commit that the revision means now, and all files in it: bytes by name.

        Raises:
            UserError: If the hub does not have it, or not for this user.
            InfrastructureError: If the hub does not answer.
        """
        with self._clear_errors():
            from huggingface_hub import HfApi

            api = HfApi(endpoint=_endpoint(), token=_token())
            ask = api.model_info if self.kind == "model" else api.dataset_info
            info = ask(self.repo, revision=self.revision, timeout=_TIMEOUT, files_metadata=True)
            assert info.sha is not None
            files = sorted(info.siblings or [], key=lambda file: file.rfilename)
            return info.sha, {file.rfilename: file.size or 0 for file in files}

    def download(self, commit: str, patterns: Sequence[str], cache: Path) -> Path:
        """The files of `commit` that match one of the `patterns`, in a folder of their own.

        Args:
            commit: As `list_files` gave it.
            patterns: Names; `glob.escape` them if they are not meant as patterns.
            cache: Holds what is finished, in the library's layout; a second try goes on there.

        Raises:
            UserError: If this user may not have them.
            InfrastructureError: If the network or the disk fails.
        """
        with self._clear_errors(), disk_errors(cache):
            from huggingface_hub import snapshot_download
            from huggingface_hub.utils.tqdm import disable_progress_bars

            if not sys.stderr.isatty():
                # A log is no place for bars.
                disable_progress_bars()
            cache.mkdir(parents=True, exist_ok=True)
            self._sweep(cache)
            snapshot = snapshot_download(
                self.repo,
                repo_type=self.kind,
                revision=commit,
                allow_patterns=list(patterns),
                cache_dir=cache,
                endpoint=_endpoint(),
                token=_token(),
            )
            return Path(snapshot)

    def _sweep(self, cache: Path) -> None:
        """Removes what killed downloads left half; the library starts such a file anew."""
        blobs = cache / f"{self.kind}s--{self.repo.replace('/', '--')}" / "blobs"
        for left in blobs.glob("*.incomplete"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    left.unlink()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except DreamBoothError as error:
            # disk_errors sees every OSError, and those of the library are some without a number.
            cause = error.__cause__
            if isinstance(cause, OSError) and not _of_disk(cause):
                raise self._translated(cause) from cause
            raise
        except Exception as error:
            # The library lets the exceptions of its HTTP client through, whichever that is.
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> DreamBoothError:
        from huggingface_hub import errors

        what = "model" if self.kind == "model" else "data set"
        page = f"{_endpoint()}/{'' if self.kind == 'model' else 'datasets/'}{self.repo}"
        if isinstance(error, errors.GatedRepoError):
            return self._gated(what, page)
        if isinstance(error, errors.RevisionNotFoundError):
            return UserError(
                f"the {what} {self.repo} has no revision {self.revision}",
                field=f"{self.field}.revision",
                remedy=f"Take a commit from {page}/commits/main.",
                reason="RevisionNotFound",
            )
        if isinstance(error, (errors.RepositoryNotFoundError, errors.DisabledRepoError)):
            return self._missing(what, page)
        if isinstance(error, errors.HFValidationError):
            return UserError(
                f"{self.repo} is no name of a {what} on the hub",
                field=f"{self.field}.repo",
                remedy="Give owner/name.",
                reason="RepoNotFound",
            )
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            return UserError(
                f"the hub refuses the {what} {self.repo} (status {status})",
                field=f"{self.field}.repo",
                remedy="Set HF_TOKEN to a valid token that may read it, on a cluster through "
                f"{self.field}.secretRef.",
                reason="PermissionDenied",
            )
        if _is_offline(error):
            return UserError(
                f"the {what} {self.repo} at {self.revision} is not on this workspace yet, and "
                "HF_HUB_OFFLINE forbids downloading it",
                field=f"{self.field}.repo",
                remedy="Run once with a network and without HF_HUB_OFFLINE, or bring the files "
                "and give a path instead.",
                reason="HubOffline",
            )
        return self._unreachable(what, error, status)

    def _gated(self, what: str, page: str) -> UserError:
        if _token():
            what_to_do = f"Accept its terms on {page} with the account of HF_TOKEN."
        else:
            what_to_do = (
                f"Accept its terms on {page}, then set HF_TOKEN to a token of that account, on a "
                f"cluster through {self.field}.secretRef."
            )
        return UserError(
            f"the {what} {self.repo} is gated: its owner wants its terms accepted",
            field=f"{self.field}.repo",
            remedy=what_to_do,
            reason="GatedRepo",
        )

    def _missing(self, what: str, page: str) -> UserError:
        private = (
            "HF_TOKEN belongs to an account that may read it"
            if _token()
            else f"set HF_TOKEN if it is private, on a cluster through {self.field}.secretRef"
        )
        return UserError(
            f"there is no {what} {self.repo} on the hub, or it is private",
            field=f"{self.field}.repo",
            remedy=f"Check the name at {page}, and {private}.",
            reason="RepoNotFound",
        )

    def _unreachable(self, what: str, error: Exception, status: int | None) -> InfrastructureError:
        why = f"status {status}" if status else _first_line(error)
        return InfrastructureError(
            f"the hub does not give the {what} {self.repo}, which is not on this workspace yet "
            f"({why})",
            field=f"{self.field}.repo",
            remedy="Check the network and run again; files that are finished are kept.",
            reason="HubUnreachable",
        )


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def _token() -> str | Literal[False]:
    """False keeps the library from looking for a stored login."""
    return os.environ.get("HF_TOKEN", "").strip() or False


def _of_disk(error: OSError) -> bool:
    """Whether the operating system said it about a file; errors of HTTP clients differ."""
    return error.errno is not None and not isinstance(error, (ConnectionError, TimeoutError))


def _is_offline(error: BaseException | None) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    while error is not None:
        if isinstance(error, OfflineModeIsEnabled):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
