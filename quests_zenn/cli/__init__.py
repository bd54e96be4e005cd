"""The command line: parse, call the library, write. No mathematics."""
