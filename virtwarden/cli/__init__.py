"""virt-warden's commands, one module each."""
