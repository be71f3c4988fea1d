"""--train.agent_func_path: each sample is a rollout in the environment, with its tools and its state."""

import os

from rollforge.train.adapters.openrlhf import agent_executor

AgentExecutor = agent_executor(os.environ.get("ROLLFORGE_ENV", "arithmetic"), max_turns=8)
