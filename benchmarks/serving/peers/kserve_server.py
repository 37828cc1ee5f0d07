"""KServe's Python server: a model of one's own, asked by gRPC."""

import sys

import model
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelServer


class Pipeline(Model):
    """The pipeline behind the Open Inference Protocol."""

    def __init__(self) -> None:
        super().__init__("pipeline")
        self._pipeline = model.load()
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:  # noqa: ARG002
        frame = model.frame({tensor.name: _values(tensor) for tensor in payload.inputs})
        predictions = self._pipeline.predict(frame).tolist()
        output = InferOutput("predictions", [len(predictions)], "BYTES", predictions)
        return InferResponse(payload.id, self.name, [output])


def _values(tensor: InferInput):
    array = tensor.as_numpy().ravel()
    if tensor.datatype != "BYTES":
        return array
    return [value.decode() if isinstance(value, bytes) else value for value in array]


if __name__ == "__main__":
    http_port, grpc_port = sys.argv[1:]
    ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), workers=1, enable_docs_url=False).start(
        [Pipeline()]
    )
