"""How this host's libvirt is managed from elsewhere: how it stands, and how it is set up.

checks.py looks, recipes.py says what to write for each of the three ways in, edits.py writes it so
that it can be taken back.
"""
