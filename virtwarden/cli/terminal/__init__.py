"""What commands have in common of what a terminal shows and asks."""
