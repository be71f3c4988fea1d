"""An agent: seeds a session, talks until the model calls no more tools, has it verified; cookies passed on by hand."""

import json

from fastapi import Body, Request, Response
from nemo_gym.base_resources_server import BaseRunRequest, BaseVerifyRequest, BaseVerifyResponse
from nemo_gym.base_responses_api_agent import BaseResponsesAPIAgentConfig, SimpleResponsesAPIAgent
from nemo_gym.config_types import ModelServerRef, ResourcesServerRef
from nemo_gym.openai_utils import (
    NeMoGymEasyInputMessage,
    NeMoGymFunctionCallOutput,
    NeMoGymResponse,
    NeMoGymResponseCreateParamsNonStreaming,
)
from nemo_gym.server_utils import get_response_json, raise_for_status
from pydantic import ConfigDict


class PatientConfig(BaseResponsesAPIAgentConfig):
    resources_server: ResourcesServerRef
    model_server: ModelServerRef
    max_steps: int = 4


class PatientRunRequest(BaseRunRequest):
    model_config = ConfigDict(extra="allow")


class PatientVerifyRequest(BaseVerifyRequest):
    model_config = ConfigDict(extra="allow")


class PatientVerifyResponse(BaseVerifyResponse):
    model_config = ConfigDict(extra="allow")


class PatientAgent(SimpleResponsesAPIAgent):
    config: PatientConfig

    async def responses(
        self, request: Request, response: Response, body: NeMoGymResponseCreateParamsNonStreaming = Body()
    ) -> NeMoGymResponse:
        body = body.model_copy(deep=True)
        if isinstance(body.input, str):
            body.input = [NeMoGymEasyInputMessage(role="user", content=body.input)]
        cookies, model_cookies = request.cookies, None
        outputs = []
        for _ in range(self.config.max_steps):
            asked = body.model_copy(update={"input": body.input + outputs})
            reply = await self.server_client.post(
                server_name=self.config.model_server.name, url_path="/v1/responses", json=asked, cookies=model_cookies
            )
            await raise_for_status(reply)
            model_cookies = reply.cookies
            model_response = NeMoGymResponse.model_validate(await get_response_json(reply))
            outputs += model_response.output
            calls = [item for item in model_response.output if item.type == "function_call"]
            if not calls:
                break
            for call in calls:
                done = await self.server_client.post(
                    server_name=self.config.resources_server.name,
                    url_path=f"/{call.name}",
                    json=json.loads(call.arguments),
                    cookies=cookies,
                )
                cookies = done.cookies
                text = (await done.content.read()).decode()
                outputs.append(NeMoGymFunctionCallOutput(call_id=call.call_id, output=text))
        for name, cookie in cookies.items():
            response.set_cookie(name, getattr(cookie, "value", cookie))
        model_response.output = outputs
        return model_response

    async def run(self, request: Request, body: PatientRunRequest) -> PatientVerifyResponse:
        seeded = await self.server_client.post(
            server_name=self.config.resources_server.name,
            url_path="/seed_session",
            json=body.model_dump(),
            cookies=request.cookies,
        )
        await raise_for_status(seeded)
        answered = await self.server_client.post(
            server_name=self.config.name, url_path="/v1/responses", json=body.responses_create_params, cookies=seeded.cookies
        )
        await raise_for_status(answered)
        asked = PatientVerifyRequest.model_validate(body.model_dump() | {"response": await get_response_json(answered)})
        verified = await self.server_client.post(
            server_name=self.config.resources_server.name,
            url_path="/verify",
            json=asked.model_dump(),
            cookies=answered.cookies,
        )
        await raise_for_status(verified)
        return PatientVerifyResponse.model_validate(await get_response_json(verified))


if __name__ == "__main__":
    PatientAgent.run_webserver()
