"""How a console's ticket is given out: who asks, who may, and what the two ends say.

tickets.py is the service that gives it; all that the operator's own end needs (operators.py and
talk.py) comes without libvirt.
"""
