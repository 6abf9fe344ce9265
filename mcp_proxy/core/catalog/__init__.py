"""What all upstreams offer together: tools, the names they are found by, and the check of their arguments."""
