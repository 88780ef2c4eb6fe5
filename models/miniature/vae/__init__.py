"""The autoencoder, the first part of the miniature painter."""
