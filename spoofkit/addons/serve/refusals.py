"""What the service refuses: an HTTP status and a sentence, which the client gets as a problem (RFC 9457)."""

from collections.abc import Mapping


class Refused(Exception):
    """A request that is not served."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})
