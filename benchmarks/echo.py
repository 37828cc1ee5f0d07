"""A bare grpc.aio server that answers with the bytes it got: what gRPC in Python costs by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc


async def echo(raw: bytes, _context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    return raw


async def main() -> None:
    server = grpc.aio.server()
    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("easyml.v1.PredictionService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"READY 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
