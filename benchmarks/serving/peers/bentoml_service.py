"""BentoML: a service that gathers rows into batches itself."""

import bentoml
import model


@bentoml.service(workers=1, traffic={"timeout": 60})
class Pipeline:
    """The pipeline behind HTTP; rows of several calls are predicted together."""

    def __init__(self) -> None:
        self._pipeline = model.load()
        self._columns = model.columns()

    @bentoml.api(batchable=True, max_batch_size=1000)
    def predict(self, rows: list[list]) -> list[str]:
        values = dict(zip(self._columns, zip(*rows, strict=True), strict=True))
        return self._pipeline.predict(model.frame(values)).tolist()
