"""Rows through the agents of running servers, for trainers; and the keys with which a row says that its rollout failed."""

from __future__ import annotations

from rollforge.nemo.run_helper import RolloutCollectionHelper as RolloutCollectionHelper

NG_FAILURE_CLASS_KEY = "_ng_failure_class"
NG_NO_PERSIST_KEY = "_ng_no_persist"
NG_TERMINAL_KEY = "_ng_failure_terminal"
NG_TRAJECTORY_KEY = "ng_trajectory"
