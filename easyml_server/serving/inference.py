"""The Open Inference Protocol of a model server, for clients of Triton, KServe and others that speak it.

A model is asked by its version id, or by a name that the server was told. Each answers for one version, whose id
`model_version` may say too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

import grpc
from google.protobuf.message import Message

from easyml_server import __version__
from easyml_server.domain.errors import NotFound
from easyml_server.serving import faults
from easyml_server.serving.calls import Calls, Context, call_id_of, decode, told
from easyml_server.serving.layout import RawTable
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.notes import Answered
from easyml_server.serving.tensors import DATATYPES, Output, outputs_of, read_table, wanted, write_outputs
from inference import open_inference_grpc_pb2 as pb

SERVICE: Final = "inference.GRPCInferenceService"
SERVER_NAME: Final = "easyml-model-server"
READY: Final = "READY"
VARIABLE: Final = -1


class InferenceServicer:
    """Answers for the models of this process."""

    def __init__(self, calls: Calls, names: Mapping[str, str]) -> None:
        """`names` are version ids by the further names that their models have."""
        self._calls = calls
        self._models = _Models(calls.models, names)

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        public = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
        }
        others = {
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
            "RepositoryIndex": self.repository_index,
        }
        handlers = {name: self._calls.unary(SERVICE, name, method, public=True) for name, method in public.items()}
        handlers |= {name: self._calls.unary(SERVICE, name, method) for name, method in others.items()}
        handlers["ModelStreamInfer"] = self._calls.stream(SERVICE, "ModelStreamInfer", self.model_stream_infer)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def server_live(self, _raw: bytes, _context: Context) -> bytes:
        """Whoever answers is alive."""
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, _raw: bytes, _context: Context) -> bytes:
        """Models are loaded and warm before the port is open."""
        return pb.ServerReadyResponse(ready=True).SerializeToString()

    async def server_metadata(self, _raw: bytes, _context: Context) -> bytes:
        """Who this is, and which extensions of the protocol it answers."""
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=__version__, extensions=["model_repository", "binary_tensor_data"]
        ).SerializeToString()

    async def model_ready(self, raw: bytes, _context: Context) -> bytes:
        """Whether a model is served here."""
        request = decode(pb.ModelReadyRequest, raw)
        try:
            self._models.find(request.name, request.version)
        except NotFound:
            return pb.ModelReadyResponse(ready=False).SerializeToString()
        return pb.ModelReadyResponse(ready=True).SerializeToString()

    async def model_metadata(self, raw: bytes, _context: Context) -> bytes:
        """The tensors that a model takes and gives."""
        request = decode(pb.ModelMetadataRequest, raw)
        return self._calls.serialized(_metadata(request.name, self._models.find(request.name, request.version)))

    async def repository_index(self, raw: bytes, _context: Context) -> bytes:
        """All models under all their names; a model that is not ready is not here."""
        request = decode(pb.RepositoryIndexRequest, raw)
        response = pb.RepositoryIndexResponse()
        # There is one repository, without a name.
        for name, version in sorted(self._models.names.items()) if not request.repository_name else ():
            response.models.add(name=name, version=version, state=READY)
        return self._calls.serialized(response)

    async def model_infer(self, raw: bytes, context: Context) -> bytes:
        """Answer one request."""
        return await self._calls.answer(_Infer(self._models), raw, context)

    async def model_stream_infer(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Answer each request of a stream in its place, under its id."""
        async for raw in requests:
            form = _StreamInfer(self._models)
            try:
                yield await self._calls.answer_alone(form, raw, context)
            except Exception as error:  # one request must not end the stream
                yield form.error(told(error, call_id_of(context)).message)


class _Models:
    """Models by all their names, and the outputs of each."""

    def __init__(self, models: Mapping[str, LoadedModel], names: Mapping[str, str]) -> None:
        self.names = {version: version for version in models} | dict(names)
        self._models = models
        self.outputs = {version: outputs_of(model.signature) for version, model in models.items()}

    def find(self, name: str, version: str) -> LoadedModel:
        """A model by its name, and by the id of its version, if it is given. Raises NotFound."""
        found = self.names.get(name) or self.names.get(name.lower())
        if found is None:
            raise NotFound.of("model", faults.shortened(name))
        if version and version.lower() != found:
            raise NotFound.of("model version", faults.shortened(version))
        return self._models[found]


class _Infer:
    """A question and its answer, as they are packed in one call."""

    def __init__(self, models: _Models) -> None:
        self._models = models
        self._request = pb.ModelInferRequest()
        self._outputs: tuple[Output, ...] = ()

    def read(self, raw: bytes) -> tuple[LoadedModel, RawTable]:
        self._request = decode(pb.ModelInferRequest, raw)
        model = self._models.find(self._request.model_name, self._request.model_version)
        self._outputs = self._models.outputs[model.version_id]
        self._chosen = wanted(self._request, self._outputs)
        return model, read_table(self._request, model.reader)

    def write(self, model: LoadedModel, answered: Answered) -> Message:
        return self.response(model, answered)

    def response(self, model: LoadedModel, answered: Answered) -> pb.ModelInferResponse:
        request = self._request
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=model.version_id, id=request.id)
        raw = bool(request.raw_input_contents)
        write_outputs(response, answered, model.signature, self._outputs, self._chosen, raw=raw)
        return response


class _StreamInfer(_Infer):
    """The same as a message of a stream."""

    def write(self, model: LoadedModel, answered: Answered) -> Message:
        return pb.ModelStreamInferResponse(infer_response=self.response(model, answered))

    def error(self, message: str) -> bytes:
        """Why there is no answer to what was read last."""
        request = self._request
        response = pb.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version, id=request.id
        )
        return pb.ModelStreamInferResponse(error_message=message, infer_response=response).SerializeToString()


def _metadata(name: str, model: LoadedModel) -> pb.ModelMetadataResponse:
    response = pb.ModelMetadataResponse(name=name, versions=[model.version_id], platform="easyml")
    for column in model.signature.inputs:
        response.inputs.add(name=column.name, datatype=DATATYPES[column.storage_type], shape=[VARIABLE, 1])
    for output in outputs_of(model.signature):
        response.outputs.add(name=output.name, datatype=output.datatype, shape=[VARIABLE, output.columns])
    return response
