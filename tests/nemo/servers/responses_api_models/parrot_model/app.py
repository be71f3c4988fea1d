"""A model that says what its configuration tells it to."""

from fastapi import Body
from nemo_gym.base_responses_api_model import BaseResponsesAPIModelConfig, SimpleResponsesAPIModel
from nemo_gym.openai_utils import (
    NeMoGymChatCompletion,
    NeMoGymChatCompletionCreateParamsNonStreaming,
    NeMoGymResponse,
    NeMoGymResponseCreateParamsNonStreaming,
    NeMoGymResponseOutputMessage,
    NeMoGymResponseOutputText,
)


class ParrotConfig(BaseResponsesAPIModelConfig):
    text: str


class ParrotModel(SimpleResponsesAPIModel):
    config: ParrotConfig

    async def responses(self, body: NeMoGymResponseCreateParamsNonStreaming = Body()) -> NeMoGymResponse:
        text = NeMoGymResponseOutputText(text=self.config.text, annotations=[])
        return NeMoGymResponse(
            id="resp_1",
            created_at=0,
            model="parrot",
            object="response",
            output=[NeMoGymResponseOutputMessage(id="msg_1", content=[text])],
            parallel_tool_calls=body.parallel_tool_calls,
            tool_choice=body.tool_choice,
            tools=body.tools,
        )

    async def chat_completions(self, body: NeMoGymChatCompletionCreateParamsNonStreaming = Body()) -> NeMoGymChatCompletion:
        message = {"role": "assistant", "content": self.config.text}
        return NeMoGymChatCompletion.model_validate(
            {
                "id": "chatcmpl_1",
                "created": 0,
                "model": "parrot",
                "object": "chat.completion",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            }
        )
