"""Records, identities, vocabularies, shards and the commit protocol."""
