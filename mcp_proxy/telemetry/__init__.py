"""What the program says about itself: logs, redaction, the record of a request."""
