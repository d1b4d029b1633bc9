"""Opening a SOURCE: a DSN, a schema file, a directory of migrations or a saved snapshot."""
