"""Asks /classify with vLLM's own request model and reads the reply with its response model.

Runs in an environment that has vLLM: python vllm_client.py URL MODEL VIDEO
"""

import base64
import json
import sys
import urllib.request
from pathlib import Path

from vllm.entrypoints.pooling.classify.protocol import ClassificationChatRequest, ClassificationResponse


def main(url: str, model: str, video: str) -> None:
    data = base64.b64encode(Path(video).read_bytes()).decode()
    part = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}
    messages = [{"role": "user", "content": [part]}]
    asked = ClassificationChatRequest(model=model, messages=messages).model_dump(mode="json") | {"messages": messages}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/classify", json.dumps(asked).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as reply:
        answer = ClassificationResponse.model_validate_json(reply.read())
    [found] = answer.data
    unknown = [answer.model_extra, answer.usage.model_extra, found.model_extra]
    said = {"label": found.label, "probs": found.probs, "unknown": [names for names in unknown if names]}
    sys.stdout.write(f"\n{json.dumps(said)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
