"""Rollouts for any trainer, of what `rollforge serve ENV --model ...` serves: python client.py URL tasks.jsonl 8"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def rollout(url: str, row: dict) -> dict | None:
    """One rollout of a task's row. None where there is no verdict: leave it out of the batch, a 0 would be learned from."""
    for _ in range(3):
        try:
            with urlopen(Request(f"{url}/run", json.dumps(row).encode()), timeout=3600) as answer:
                return json.load(answer)
        except HTTPError as error:
            with error:
                problem = json.load(error)["error"]
            print(f"no verdict: {problem['type']}: {problem['message']}", file=sys.stderr)
            if not problem.get("retryable"):
                break
    return None


if __name__ == "__main__":
    url, file, group = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(file, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    with ThreadPoolExecutor(64) as pool:
        for found in pool.map(lambda row: rollout(url, row), [row for row in rows for _ in range(group)]):
            if found is not None:
                said = [item for item in found["response"]["output"] if item.get("generation_token_ids")]
                tokens = sum(len(item["generation_token_ids"]) for item in said)
                print(found["reward"], f"{len(said)} model calls with token ids, {tokens} tokens")
