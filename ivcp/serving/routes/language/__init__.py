"""Routes of models that write and of models that score, in the shapes of OpenAI, vLLM and LLaMA-Factory."""
