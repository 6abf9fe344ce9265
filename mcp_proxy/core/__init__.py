"""The one call path and what it stands on: principals, upstreams, the catalogue. Knows no HTTP server and no door."""
