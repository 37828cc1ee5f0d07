"""Run with KServe's client in an environment of its own: asks a server all that the client can, and prints what came.

Arguments: address, name of a model, token or "". Standard output: JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

import grpc
from kserve import InferenceGRPCClient, InferInput, InferRequest
from two_rows import COLUMNS


def request(model: str, *, leave_out: str = "") -> InferRequest:
    made = []
    for name, (datatype, values) in COLUMNS.items():
        if name != leave_out:
            tensor = InferInput(name, list(values.shape), datatype)
            tensor.set_data_from_numpy(values)
            made.append(tensor)
    return InferRequest(model_name=model, infer_inputs=made, request_id="7")


async def main(address: str, model: str, token: str) -> None:
    headers = (("authorization", f"Bearer {token}"),) if token else None
    client = InferenceGRPCClient(address)
    answer = await client.infer(request(model), headers=headers)
    level, probabilities = answer.outputs
    said = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready(model, headers=headers),
        "answer": {
            "id": answer.id,
            "level": [text.decode() for text in level.as_numpy().ravel()],
            "probabilities": probabilities.as_numpy().tolist(),
        },
        "refused": [],
    }
    try:
        await client.infer(request(model, leave_out="age"), headers=headers)
    except grpc.RpcError as error:
        said["refused"] = [error.code().name, error.details()]
    await client.close()
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
