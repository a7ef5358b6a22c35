"""What is known of every Pi: the live board, the store, the agent on the Pi."""
