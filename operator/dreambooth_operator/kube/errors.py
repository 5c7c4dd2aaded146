"""What can go wrong when the API is asked, as types.

Reconciling reacts to few of them: `NotFound`, `KindNotServed` and `Conflict` are observations, the
others end the run, which is tried again later.
"""


class KubeError(Exception):
    """Base of all errors of the port.

    Args:
        message: What the API or the network said.
        status: The HTTP status, where there was an answer.
        retry_after: Seconds that the API asked to wait.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after = retry_after


class NotFound(KubeError):
    """There is no such object."""


class KindNotServed(NotFound):
    """The API does not know the kind: its CustomResourceDefinition is not installed."""


class Conflict(KubeError):
    """The object is not the one that was meant: another uid or resourceVersion, or it exists."""


class Gone(KubeError):
    """The resourceVersion or continue token is too old."""


class Invalid(KubeError):
    """The API refuses the content (400 and 422)."""


class Unauthorized(KubeError):
    """The API does not accept the credentials."""


class Forbidden(KubeError):
    """The operator is not allowed to do this, or a quota or policy refuses it."""


class TooManyRequests(KubeError):
    """The API asks to slow down."""


class Unavailable(KubeError):
    """The API answers with an error of its own (5xx), or the connection fails."""


class Timeout(Unavailable):
    """No answer in time. The request may have been carried out."""


_BY_STATUS: dict[int, type[KubeError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
    504: Timeout,
}


def error_for(status: int, message: str, *, retry_after: float | None = None) -> KubeError:
    """The error that an HTTP status means."""
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 else KubeError)
    return kind(message, status=status, retry_after=retry_after)
