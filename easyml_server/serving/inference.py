"""The Open Inference Protocol of a model server, for clients of Triton, KServe and others that speak it.

A model is asked by its version id, or by a name that the server was told. Each answers for one version at a time, whose
id `model_version` may say too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import grpc
from google.protobuf.message import Message

from easyml_server import __version__
from easyml_server.domain.errors import NotFound
from easyml_server.serving.calls import Calls
from easyml_server.serving.endings import Context, call_id_of, decode, told
from easyml_server.serving.known import Known
from easyml_server.serving.layout import RawTable
from easyml_server.serving.models import LoadedModel
from easyml_server.serving.notes import Answered
from easyml_server.serving.repository import ModelRepository, Models, NotLoaded
from easyml_server.serving.tensors import DATATYPES, Output, read_table, wanted, write_outputs
from inference import open_inference_grpc_pb2 as pb

SERVICE: Final = "inference.GRPCInferenceService"
SERVER_NAME: Final = "easyml-model-server"
READY, UNAVAILABLE = "READY", "UNAVAILABLE"
VARIABLE: Final = -1


class InferenceServicer:
    """Answers for the models of this process."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._models: ModelRepository = calls.models

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
        """Models are loaded and warm before the port is open, or by their first call."""
        return pb.ServerReadyResponse(ready=True).SerializeToString()

    async def server_metadata(self, _raw: bytes, _context: Context) -> bytes:
        """Who this is, and which extensions of the protocol it answers."""
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=__version__, extensions=["model_repository", "binary_tensor_data"]
        ).SerializeToString()

    async def model_ready(self, raw: bytes, _context: Context) -> bytes:
        """Whether a model is served here; one that its next call loads is, and who asks so does not load it."""
        request = decode(pb.ModelReadyRequest, raw)
        try:
            version = self._models.known.version(request.name, request.version)
        except NotFound:
            return pb.ModelReadyResponse(ready=False).SerializeToString()
        return pb.ModelReadyResponse(ready=not self._models.has_failed(version)).SerializeToString()

    async def model_metadata(self, raw: bytes, context: Context) -> bytes:
        """The tensors that a model takes and gives."""
        request = decode(pb.ModelMetadataRequest, raw)

        async def said() -> bytes:
            model = self._models.find(lambda known: known.version(request.name, request.version))
            return self._calls.serialized(_metadata(request.name, model))

        try:
            return await said()
        except NotLoaded as missing:
            return await self._calls.when_loaded(missing, said, context)

    async def repository_index(self, raw: bytes, _context: Context) -> bytes:
        """All models under all their names."""
        request = decode(pb.RepositoryIndexRequest, raw)
        response = pb.RepositoryIndexResponse()
        # There is one repository, without a name.
        names = {} if request.repository_name else self._models.known.all_names
        for name, version in sorted(names.items()):
            failed = self._models.has_failed(version)
            if not (failed and request.ready):
                state = UNAVAILABLE if failed else READY
                response.models.add(name=name, version=version, state=state, reason=self._reason(version))
        return self._calls.serialized(response)

    def _reason(self, version: str) -> str:
        if self._models.has_failed(version):
            return "It could not be loaded; the log of the model server says why."
        return "" if self._models.is_loaded(version) else "Its next call loads it."

    async def model_infer(self, raw: bytes, context: Context) -> bytes:
        """Answer one request."""
        return await self._calls.answer(_Infer(), raw, context)

    async def model_stream_infer(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Answer each request of a stream in its place, under its id."""
        async for raw in requests:
            form = _StreamInfer()
            try:
                yield await self._calls.answer_alone(form, raw, context)
            except Exception as error:  # one request must not end the stream
                yield form.error(told(error, call_id_of(context)).message)


class _Infer:
    """A question and its answer, as they are packed in one call."""

    def __init__(self) -> None:
        self._request = pb.ModelInferRequest()
        self._outputs: tuple[Output, ...] = ()

    def read(self, raw: bytes, models: Models) -> tuple[LoadedModel, RawTable]:
        self._request = decode(pb.ModelInferRequest, raw)
        model = models.find(self._version)
        self._outputs = model.outputs
        self._chosen = wanted(self._request, self._outputs)
        return model, read_table(self._request, model.reader)

    def _version(self, known: Known) -> str:
        return known.version(self._request.model_name, self._request.model_version)

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
    for output in model.outputs:
        response.outputs.add(name=output.name, datatype=output.datatype, shape=[VARIABLE, output.columns])
    return response
