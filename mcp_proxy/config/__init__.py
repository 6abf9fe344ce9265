"""Configured servers: the model, the dialects they are written in, and how files are read."""
