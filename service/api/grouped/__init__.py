"""Many small requests at once: those of one turn of the loop are read, run and written together."""
