"""The words of each API: pure converters between JSON as it is on the wire and `bridge.chat`. No I/O."""
