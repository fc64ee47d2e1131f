"""The statements of the bus, one file for each kind of database."""
