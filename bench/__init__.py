"""`make bench`: what virt-warden costs."""
