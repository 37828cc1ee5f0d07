"""Run with Triton's client in an environment of its own: asks a server all that the client can, and prints what came.

Arguments: address, name of a model, token or "". Standard output: JSON.
"""

from __future__ import annotations

import json
import queue
import sys

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException
from two_rows import COLUMNS


def inputs(*, leave_out: str = "") -> list[triton.InferInput]:
    made = []
    for name, (datatype, values) in COLUMNS.items():
        if name != leave_out:
            tensor = triton.InferInput(name, list(values.shape), datatype)
            tensor.set_data_from_numpy(values)
            made.append(tensor)
    return made


def told(result: triton.InferResult) -> dict[str, object]:
    texts = result.as_numpy("level").ravel()
    return {
        "id": result.get_response().id,
        "level": [text.decode() for text in texts],
        "probabilities": result.as_numpy("level_probabilities").tolist(),
    }


def main(address: str, model: str, token: str) -> None:
    headers = {"authorization": f"Bearer {token}"} if token else None
    with triton.InferenceServerClient(address) as client:
        metadata = client.get_model_metadata(model, headers=headers, as_json=True)
        index = client.get_model_repository_index(headers=headers, as_json=True)
        said = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(model, headers=headers),
            "other_ready": client.is_model_ready("another", headers=headers),
            "server": client.get_server_metadata(as_json=True)["name"],
            "inputs": {each["name"]: each["datatype"] for each in metadata["inputs"]},
            "outputs": [each["name"] for each in metadata["outputs"]],
            "index": [each["name"] for each in index["models"]],
            "answer": told(client.infer(model, inputs(), request_id="7", headers=headers)),
            "chosen": [
                output.name
                for output in client.infer(
                    model, inputs(), outputs=[triton.InferRequestedOutput("level")], headers=headers
                )
                .get_response()
                .outputs
            ],
            "refused": refusal(client, model, headers),
            "stream": streamed(client, model, headers),
        }
    sys.stdout.write(json.dumps(said))


def refusal(client: triton.InferenceServerClient, model: str, headers: dict[str, str] | None) -> list[str]:
    try:
        client.infer(model, inputs(leave_out="age"), headers=headers)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return []


def streamed(client: triton.InferenceServerClient, model: str, headers: dict[str, str] | None) -> list[object]:
    came: queue.Queue[tuple[triton.InferResult | None, InferenceServerException | None]] = queue.Queue()
    client.start_stream(lambda result, error: came.put((result, error)), headers=headers)
    client.async_stream_infer(model, inputs(), request_id="a")
    client.async_stream_infer(model, inputs(leave_out="age"), request_id="b")
    client.async_stream_infer(model, inputs(), request_id="c")
    answers: list[object] = []
    for _ in range(3):
        result, error = came.get(timeout=60)
        answers.append(told(result) if result is not None else error.message())
    client.stop_stream()
    return answers


if __name__ == "__main__":
    main(*sys.argv[1:4])
