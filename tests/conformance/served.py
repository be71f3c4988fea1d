"""An ASGI application on a real socket, in the test's own event loop."""

from tests.serve.live import serving as served

__all__ = ["served"]
