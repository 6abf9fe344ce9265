"""Completions for OpenAI and Anthropic clients: one request in neutral words, and what answers it. No HTTP server here."""
