"""The hello protocol and the image: how a Pi is installed."""
