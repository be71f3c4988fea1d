"""What servers that are played step by step build on. A checkout's own module of this name comes first."""

from nemo_gym._gymnasium import (  # type: ignore[import-not-found]
    EnvResetRequest,
    EnvResetResponse,
    EnvStepRequest,
    EnvStepResponse,
    GymnasiumServer,
    extract_text,
)

__all__ = [
    "EnvResetRequest",
    "EnvResetResponse",
    "EnvStepRequest",
    "EnvStepResponse",
    "GymnasiumServer",
    "extract_text",
]
