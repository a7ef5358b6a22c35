"""The web page and the API: Flask is known here alone. Must hold no rule of a protocol, and no SQL."""
