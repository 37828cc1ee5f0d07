"""LitServe: an API in a worker process; calls of one row are gathered by it."""

import sys
from itertools import islice

import litserve
import model

BATCH = 32
BATCH_SECONDS = 0.002


class Pipeline(litserve.LitAPI):
    """The pipeline behind HTTP; a call may have many rows."""

    def setup(self, device):  # noqa: ARG002 (the library's signature)
        self._pipeline = model.load()
        self._columns = model.columns()

    def decode_request(self, request):
        return request["rows"]

    def batch(self, inputs):
        self._lengths = [len(rows) for rows in inputs]
        return [row for rows in inputs for row in rows]

    def predict(self, rows):
        values = dict(zip(self._columns, zip(*rows, strict=True), strict=True))
        return self._pipeline.predict(model.frame(values)).tolist()

    def unbatch(self, output):
        rest = iter(output)
        return [list(islice(rest, length)) for length in self._lengths]

    def encode_response(self, output):
        return {"predictions": output}


if __name__ == "__main__":
    api = Pipeline(max_batch_size=BATCH, batch_timeout=BATCH_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", log_level="warning", generate_client_file=False)
