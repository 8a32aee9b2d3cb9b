"""What libvirt says of a domain: its XML as a frozen value, each field with its place in it."""
