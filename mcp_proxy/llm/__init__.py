"""The LLM door: OpenAI's and Anthropic's APIs over HTTP. What answers is `bridge`; here is what is HTTP about it."""
