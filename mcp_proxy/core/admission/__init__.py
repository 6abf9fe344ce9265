"""What may be added over the API: addresses, commands, entries. Servers of files and variables are not asked here."""

from mcp_proxy.core.admission.admission import Admission

__all__ = ["Admission"]
