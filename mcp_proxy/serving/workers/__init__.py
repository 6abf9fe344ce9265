"""Serving with more than one core: worker processes speak HTTP, the process that started them, the *owner*, runs the
application.

A worker has connections and nothing else. Every ASGI conversation crosses to the owner in messages (`frames`), over a
socket that only the two have, so that whatever is counted, kept or logged is so in one place.
"""
