"""One file per input format; readers return values and never touch a store."""
