"""Played step by step, in the manner of Gymnasium."""

from nemo_gym.base_resources_server import BaseResourcesServerConfig
from nemo_gym.openai_utils import NeMoGymResponse
from resources_servers.gymnasium import GymnasiumServer, extract_text


class GuessServer(GymnasiumServer):
    config: BaseResourcesServerConfig

    async def reset(self, metadata: dict, session_id=None):
        self.session_state[session_id] = metadata["secret"]
        return "Guess a number.", {}

    async def step(self, action: NeMoGymResponse, metadata: dict, session_id=None):
        calls = [item for item in action.output if item.type == "function_call"]
        if calls:
            outputs = [self.tool_output(call, {"hint": self.session_state[session_id] % 2}) for call in calls]
            return None, 0.0, False, False, {"tool_outputs": outputs}
        right = str(self.session_state[session_id]) in extract_text(action)
        return (None if right else "No. Again."), float(right), right, False, {}
