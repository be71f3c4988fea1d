"""A model decides; its prompt is a file beside the code."""

from pathlib import Path

from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseVerifyRequest,
    BaseVerifyResponse,
    SimpleResourcesServer,
)
from nemo_gym.config_types import ModelServerRef
from nemo_gym.judge import call_judge
from nemo_gym.openai_utils import NeMoGymEasyInputMessage, NeMoGymResponse, NeMoGymResponseCreateParamsNonStreaming


class JudgedConfig(BaseResourcesServerConfig):
    judge_model_server: ModelServerRef
    judge_responses_create_params: NeMoGymResponseCreateParamsNonStreaming
    judge_prompt_fpath: str = "prompts/judge.txt"


class JudgedVerifyRequest(BaseVerifyRequest):
    expected_answer: str


class JudgedVerifyResponse(BaseVerifyResponse):
    judged: str


class JudgedServer(SimpleResourcesServer):
    config: JudgedConfig

    async def verify(self, body: JudgedVerifyRequest) -> JudgedVerifyResponse:
        prompt = Path(self.config.judge_prompt_fpath).read_text()  # noqa: ASYNC240
        params = self.config.judge_responses_create_params.model_copy(deep=True)
        text = prompt.format(expected=body.expected_answer, given=body.response.output_text)
        params.input = [NeMoGymEasyInputMessage(role="user", content=text)]
        reply = await call_judge(
            self.server_client,
            server_name=self.config.judge_model_server.name,
            url_path="/v1/responses",
            json=params,
            response_model=NeMoGymResponse,
        )
        return JudgedVerifyResponse(**body.model_dump(), reward=float("yes" in reply.output_text), judged=reply.output_text)
