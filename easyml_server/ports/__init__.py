"""What services need from outside, as Protocols. Adapters fulfil them and never call services."""
