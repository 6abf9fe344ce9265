"""What answers HTTP at the ports: sockets, single connections, and the two servers that can do it. No application here."""
