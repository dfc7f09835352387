"""Other engines that read an exported directory: transformers alone, and vLLM."""
