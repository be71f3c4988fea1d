"""What every service can be told, by YAML and by options alike."""

from __future__ import annotations

from pydantic import Field

from rollforge.config import Section


class Settings(Section):
    host: str = "127.0.0.1"
    """Who may connect: only this machine by default."""
    port: int = Field(0, ge=0, le=65535)
    """0: any free one."""
    token_env: str | None = None
    """The environment variable that holds the bearer token callers must send. The token itself is never stored."""
    max_body_mb: float = Field(64, gt=0)
    request_seconds: float = Field(3600, gt=0)
    """Longest time one request may take."""
    body_seconds: float = Field(60, gt=0)
    """Longest pause of a caller that is sending its body."""
    session_seconds: float = Field(3600, gt=0)
    """A session that nobody used for so long is closed."""
    max_sessions: int = Field(10_000, ge=1)
    drain_seconds: float = Field(60, ge=0)
    """After the first signal, what is in flight may take so long."""
