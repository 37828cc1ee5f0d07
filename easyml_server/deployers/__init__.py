"""Where model servers run: the adapters of `ports.model_servers`."""
