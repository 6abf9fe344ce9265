"""The parts of `upstream.py`: what it answers (`server`), what goes wrong (`faults`), and the two wires."""
