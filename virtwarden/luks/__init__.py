"""LUKS containers: which disks are such, how they are made, and how far an adoption has come."""
