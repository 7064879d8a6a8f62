"""The commands of `prescore`: thin over flows and tasks; each imports what it needs when it is called."""
