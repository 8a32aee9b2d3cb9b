"""How a console's ticket is given out: who asks, who may, and what the two ends say.

The service that gives it, which needs libvirt, is virtwarden/cli/tickets.py.
"""
