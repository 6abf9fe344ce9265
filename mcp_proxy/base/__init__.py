"""What everything may use: errors, ids, clock, names, JSON, tasks. Knows nothing of HTTP servers or configuration."""
