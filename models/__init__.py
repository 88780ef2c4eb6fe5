"""Networks and clients behind small Protocols."""
