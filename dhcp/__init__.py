"""DHCP: a Pi's address, and where its boot files are."""
