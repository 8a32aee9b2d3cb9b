"""LUKS containers: which disks are such, how they are made, and how a disk is moved into one."""
