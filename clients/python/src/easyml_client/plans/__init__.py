"""What the client can do, noun by noun, as plans (`steps.py`): written once for the blocking and the asyncio client."""
