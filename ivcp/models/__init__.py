"""Video language models: loading, what differs between families, the processor, adapters."""
