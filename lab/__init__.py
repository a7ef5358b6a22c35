"""The virtual rack: a PoE switch and Pis that boot for real, in network namespaces."""
