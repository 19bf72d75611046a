"""Pure functions on numpy arrays: no files, no stores, no DataFrames."""
