"""Multiple choice: classes of its own for requests and answers, metrics of its own, verification without state."""

import re
from typing import Any, ClassVar

from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseRunRequest,
    BaseVerifyRequest,
    BaseVerifyResponse,
    ReverifyMode,
    SimpleResourcesServer,
)
from nemo_gym.reward_profile import compute_pass_majority_metrics, compute_subset_metrics, highest_k_metrics
from pydantic import ConfigDict


class LettersConfig(BaseResourcesServerConfig):
    REVERIFY_MODE: ClassVar[ReverifyMode] = ReverifyMode.STATELESS


class LettersRunRequest(BaseRunRequest):
    model_config = ConfigDict(extra="allow")

    options: list[dict[str, str]] | None = None
    expected_answer: str


class LettersVerifyRequest(LettersRunRequest, BaseVerifyRequest):
    pass


class LettersVerifyResponse(BaseVerifyResponse):
    model_config = ConfigDict(extra="allow")

    expected_answer: str
    extracted_answer: str | None


class LettersServer(SimpleResourcesServer):
    config: LettersConfig

    async def verify(self, body: LettersVerifyRequest) -> LettersVerifyResponse:
        text = "".join(
            part.text
            for item in body.response.output
            if item.type == "message" and item.role == "assistant"
            for part in item.content
            if part.type == "output_text"
        )
        found = re.search(r"\\boxed\{([A-Z])\}", text)
        answer = found[1] if found else None
        return LettersVerifyResponse(
            **body.model_dump(), reward=float(answer == body.expected_answer), extracted_answer=answer
        )

    def compute_metrics(self, tasks: list[list[dict[str, Any]]]) -> dict[str, Any]:
        metrics = compute_pass_majority_metrics(tasks, answer_key="extracted_answer")[0]
        metrics["per_task_metrics"] = [
            {"_ng_task_index": rows[0]["_ng_task_index"], "attempts": len(rows)} for rows in tasks
        ]
        return {**metrics, **compute_subset_metrics(tasks, "subject", answer_key="extracted_answer")}

    def get_key_metrics(self, agent_metrics: dict[str, Any]) -> dict[str, Any]:
        return highest_k_metrics(agent_metrics, "pass@{k}", exclude_names=["no_answer"])


if __name__ == "__main__":
    LettersServer.run_webserver()
