"""--reward.remote_url: the environment's verdict on answers of one turn, in OpenRLHF's own process."""

import os

from rollforge.train.adapters.openrlhf import reward_function

reward_func = reward_function(os.environ.get("ROLLFORGE_ENV", "math_answer"))
