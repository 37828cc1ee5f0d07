"""MLServer: a runtime of one's own, as its documentation has it for models that it cannot load by itself."""

import model
from mlserver import MLModel
from mlserver.codecs import PandasCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Pipeline(MLModel):
    """The pipeline behind the Open Inference Protocol."""

    async def load(self) -> bool:
        self._pipeline = model.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        frame = model.frame(self.decode_request(payload, default_codec=PandasCodec))
        predictions = self._pipeline.predict(frame).tolist()
        outputs = [StringCodec.encode_output("predictions", predictions)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
