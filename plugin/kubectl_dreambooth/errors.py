"""What goes wrong in a way that a person can do something about; shown without a traceback."""


class PluginError(Exception):
    """One sentence on what is wrong, and one on what to do."""

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what, self.remedy = what, remedy
        super().__init__(f"{what.rstrip('.')}. {remedy}".strip())


class KubectlError(PluginError):
    """kubectl said no.

    Attributes:
        reason: The API's word for it, such as NotFound or Forbidden; empty if it gave none.
    """

    def __init__(self, what: str, remedy: str = "", reason: str = "") -> None:
        super().__init__(what, remedy)
        self.reason = reason
