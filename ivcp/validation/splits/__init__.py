"""Which split each row gets: named, kept from an earlier run, or cut."""
