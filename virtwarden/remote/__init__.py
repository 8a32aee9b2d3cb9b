"""How this host's libvirt is managed from elsewhere, and how that is set up.

recipes.py says what to write for each of the three ways in, edits.py writes it so that it can be
taken back; audit/remote.py looks how it stands.
"""
