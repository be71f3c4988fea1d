"""What can go wrong with a request over HTTP, by what it says of the server and of the request."""

from __future__ import annotations

from collections.abc import Callable

SHOWN = 500
"""Characters of a server's text that a message repeats."""


class Broken(Exception):
    """A request without a whole answer; the text says what the system or the parser told."""

    words = "{} broke off ({})"
    arrived = True
    """Whether the server may have received it."""
    lasting = False
    """Whether every further call will end like this, where none was ever answered."""

    def told(self, where: str, clean: Callable[[str], str]) -> str:
        """In words. `clean` takes the secrets out."""
        return self.words.format(where, clipped(clean(str(self))) or type(self).__name__)


class NoConnection(Broken):
    words = "cannot connect to {} ({})"
    arrived = False


class Late(NoConnection):
    words = "no connection to {} within {}"


class NoName(NoConnection):
    words = "the host name of {} cannot be resolved ({})"


class NoTls(NoConnection):
    words = "{} does not speak TLS as it should ({}); is it https, and whose certificate is it?"
    lasting = True


class Closed(Broken):
    words = "{} closed the connection ({})"


class CutOff(Broken):
    words = "{} cut its answer off ({})"


class NotHttp(Broken):
    words = "{} does not speak HTTP ({})"


class TooLarge(Exception):
    """A body beyond the limit."""


def clipped(text: str, length: int = SHOWN) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[:length] + "..."
