"""How good the miniatures are, alone and in a chain, and the page that says so."""
