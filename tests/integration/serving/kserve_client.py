"""Asks a predictor with KServe's own client; runs in an environment that has it, and in which nothing else need be.

python kserve_client.py URL MODEL VIDEO
"""

import asyncio
import json
import sys
from pathlib import Path

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main(url: str, model: str, video: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=120, retries=0))
    content = np.array([Path(video).read_bytes()], dtype=np.object_)
    tensor = InferInput(name="video", shape=[1], datatype="BYTES")
    tensor.set_data_from_numpy(content, binary_data=True)
    outputs = [RequestedOutput(name, parameters={"binary_data": True}) for name in ("logits", "label", "label_name")]
    binary = await client.infer(url, InferRequest(model, [tensor], request_outputs=outputs), model_name=model)
    plain = await client.infer(url, InferRequest(model, [tensor]), model_name=model)
    refused = ""
    try:
        await client.infer(url, InferRequest("another", [tensor]), model_name="another")
    except httpx.HTTPStatusError as error:
        refused = str(error)
    answers = {
        "refused": refused,
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, model),
        "model_version": binary.model_version,
        "binary": {output.name: output.as_numpy().tolist() for output in binary.outputs},
        "plain": {output.name: output.as_numpy().tolist() for output in plain.outputs},
    }
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
