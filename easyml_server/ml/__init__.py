"""Plain functions on data frames and files; no asyncio, no gRPC, no database. Imported by workers and serving only."""
